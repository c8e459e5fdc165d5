import { describe, expect, it } from 'vitest'
import { compileRetries } from '../../../src/config/retries.js'
import { retriesSchema } from '../../../src/config/schema/retries.js'
import {
  backoffMs,
  idempotent,
  LOST,
  mayResend,
  type SendFacts,
  UNSENT,
  whither,
} from '../../../src/upstream/retries.js'

const of = (facts: Partial<SendFacts>): SendFacts => ({ ...LOST, reusedConnection: false, ...facts })

/** What is known of the request, and whether it is sent again where it may be repeated, and where it may not. */
const table: readonly (readonly [string, SendFacts, boolean, boolean])[] = [
  ['nothing of it was written', of({ written: false }), true, true],
  ['nothing of it was written the second time', of({ written: false, resent: true }), true, true],
  ['it was the first on its connection', of({}), false, false],
  ['its connection had answered others', of({ reusedConnection: true }), true, false],
  ['the same, the second time', of({ reusedConnection: true, resent: true }), false, false],
  ['the same, and a byte of the response came', of({ reusedConnection: true, responseStarted: true }), false, false],
  ['it stood behind others on a fresh connection', of({ behindOthers: true }), true, false],
  ['it stood behind others, the second time', of({ behindOthers: true, resent: true }), false, false],
  ['the client does not know more', LOST, true, false],
  ['the client does not know more, but has sent it twice', of({ reusedConnection: null, resent: true }), false, false],
]

describe('on another connection to the same endpoint', () => {
  it.each(table)('%s', (_, facts, repeatable, not) => {
    expect([mayResend(facts, true), mayResend(facts, false)]).toEqual([repeatable, not])
  })
})

describe('another attempt', () => {
  const rules = compileRetries(retriesSchema.parse({}))
  const attempt = { method: 'GET', responseStarted: false, bodyTaken: false, bodyBytes: 0, attempts: 1 }
  const reset = (sent: SendFacts | null, more: object = {}) => whither(rules, 'reset', sent, { ...attempt, ...more })

  it.each(table)('%s', (_, facts, repeatable) => {
    for (const method of ['GET', 'PUT']) {
      const expected = !facts.written ? 'elsewhere' : repeatable ? 'anywhere' : 'elsewhere'
      expect(reset(facts, { method }), method).toBe(expected)
    }
    for (const method of ['POST', 'PATCH']) {
      expect(reset(facts, { method }), method).toBe(facts.written ? 'nowhere' : 'elsewhere')
    }
  })

  it('of a client that tells nothing, and after a timeout or a status: elsewhere, if it may be repeated', () => {
    for (const reason of ['reset', 'timeout', 'status'] as const) {
      expect(whither(rules, reason, null, attempt)).toBe('elsewhere')
      expect(whither(rules, reason, null, { ...attempt, method: 'POST' })).toBe('nowhere')
    }
  })

  it.each([
    ['a failure that another attempt does not help', null, {}],
    ['a response that has started', 'connect', { responseStarted: true }],
    ['a body that is no longer whole', 'connect', { bodyTaken: true }],
    ['two attempts', 'connect', { attempts: 2 }],
  ] as const)('never after %s', (_, reason, more) => {
    expect(whither(rules, reason, UNSENT, { ...attempt, ...more })).toBe('nowhere')
  })

  it('sends a long body again only if nothing of it was sent', () => {
    const long = { method: 'PUT', bodyBytes: 65_537 }
    expect(reset(LOST, { ...long, bodyBytes: 65_536 })).toBe('anywhere')
    expect(reset(LOST, long)).toBe('nowhere')
    expect(reset(UNSENT, long)).toBe('elsewhere')
  })

  it('follows only what the configuration names', () => {
    const only = (on: unknown) => compileRetries(retriesSchema.parse({ on }))
    expect(whither(only(['connect']), 'reset', LOST, attempt)).toBe('nowhere')
    expect(whither(only(['connect']), 'status', null, attempt)).toBe('nowhere')
    expect(whither(only([503]), 'status', null, attempt)).toBe('elsewhere')
    expect(whither(only([503]), 'connect', UNSENT, attempt)).toBe('nowhere')
    expect(whither(compileRetries(false), 'connect', UNSENT, attempt)).toBe('nowhere')
  })
})

describe('the wait before an attempt', () => {
  const rules = compileRetries(retriesSchema.parse({ attempts: 10, backoff: '100ms' }))
  const longest = (attempts: number, same: boolean) =>
    Math.max(...Array.from({ length: 1000 }, () => backoffMs(rules, attempts, same)))

  it('is none at another endpoint, for the second attempt', () => {
    expect(longest(1, false)).toBe(0)
  })

  it.each([
    [1, true, 100],
    [2, false, 200],
    [3, true, 400],
    [9, true, 10_000],
  ])('after %i attempts, at the same endpoint: %s, is up to %i ms', (attempts, same, most) => {
    expect(longest(attempts, same)).toBeLessThanOrEqual(most)
    // Of a thousand, one is in the upper half: all but for sure.
    expect(longest(attempts, same)).toBeGreaterThan(most / 2)
  })
})

it('RFC 9110, 9.2.2 names the methods', () => {
  expect([...idempotent].sort()).toEqual(['DELETE', 'GET', 'HEAD', 'OPTIONS', 'PUT', 'TRACE'])
})
