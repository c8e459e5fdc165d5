import { describe, expect, it } from 'vitest'
import { newRid, traceparent, validRid, validTraceparent } from '../../../src/telemetry/trace.js'

const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
const PARENT = '00f067aa0ba902b7'
const RID = '0123456789abcdef0123456789abcdef'

describe('request ids', () => {
  it('are 32 lower-case hex digits and do not repeat when the pool of digits is refilled', () => {
    const rids = Array.from({ length: 5000 }, newRid)
    for (const rid of rids) expect(rid).toMatch(/^[0-9a-f]{32}$/)
    expect(new Set(rids).size).toBe(5000)
  })

  it.each([
    ['0123456789abcdef0123456789abcdef', true],
    ['0123456789abcdef0123456789abcde', false],
    ['0123456789abcdef0123456789abcdef0', false],
    ['0123456789ABCDEF0123456789abcdef', false],
    ['0123456789abcdef0123456789abcdeg', false],
    ['0123456789abcdef0123456789abcde"', false],
    ['00000000000000000000000000000000', false],
    ['', false],
  ])('%j from a caller is valid: %s', (rid, valid) => {
    expect(validRid(rid)).toBe(valid)
  })
})

describe('traceparent', () => {
  it('starts a sampled trace with the request id where the caller has none', () => {
    expect(traceparent('', RID)).toMatch(new RegExp(`^00-${RID}-[0-9a-f]{16}-01$`))
  })

  it('continues a trace: same id and flags, a parent of its own', () => {
    const next = traceparent(`00-${TRACE}-${PARENT}-01`, RID)
    expect(next).toMatch(new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`))
    expect(next).not.toContain(PARENT)
    expect(traceparent(`00-${TRACE}-${PARENT}-00`, RID)).toMatch(/-00$/)
  })

  it('clears the flags nobody has defined', () => {
    expect(traceparent(`00-${TRACE}-${PARENT}-ff`, RID)).toMatch(/-03$/)
    expect(traceparent(`00-${TRACE}-${PARENT}-f8`, RID)).toMatch(/-00$/)
    expect(traceparent(`00-${TRACE}-${PARENT}-0a`, RID)).toMatch(/-02$/)
  })

  it('speaks version 00 to the upstream whatever later version the caller speaks', () => {
    expect(traceparent(`cc-${TRACE}-${PARENT}-01-what-comes-then`, RID)).toMatch(
      new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`),
    )
  })

  it.each([
    [`00-${TRACE}-${PARENT}-01`, true],
    [`01-${TRACE}-${PARENT}-01`, true],
    [`cc-${TRACE}-${PARENT}-01-more`, true],
    [`cc-${TRACE}-${PARENT}-01.more`, false],
    [`00-${TRACE}-${PARENT}-01-more`, false],
    [`ff-${TRACE}-${PARENT}-01`, false],
    [`00-${TRACE.toUpperCase()}-${PARENT}-01`, false],
    [`00-${'0'.repeat(32)}-${PARENT}-01`, false],
    [`00-${TRACE}-${'0'.repeat(16)}-01`, false],
    [`00-${TRACE}-${PARENT}-0x`, false],
    [`00_${TRACE}-${PARENT}-01`, false],
    [`00-${TRACE}_${PARENT}-01`, false],
    [`00-${TRACE}-${PARENT}_01`, false],
    [`00-${TRACE}-${PARENT}`, false],
    [` 00-${TRACE}-${PARENT}-01`, false],
    ['', false],
  ])('%s is valid: %s, and where it is not a new trace begins', (value, valid) => {
    expect(validTraceparent(value)).toBe(valid)
    expect(traceparent(value, RID).slice(3, 35)).toBe(valid ? TRACE : RID)
  })
})
