import { describe, expect, it } from 'vitest'
import { idempotent, LOST, mayResend, mayRetry, type SendFacts, UNSENT } from '../../../src/upstream/retries.js'

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
  const attempt = { method: 'GET', responseStarted: false, bodyTaken: false, attempts: 1, hasOther: true }

  it.each(table)('%s', (_, facts, repeatable, not) => {
    for (const [method, expected] of [
      ['GET', repeatable],
      ['PUT', repeatable],
      ['POST', not],
      ['PATCH', not],
    ] as const) {
      expect(mayRetry(facts, { ...attempt, method }), method).toBe(expected)
    }
  })

  it('where the endpoint cannot be reached: only if there is another one', () => {
    expect(mayRetry(UNSENT, { ...attempt, hasOther: false })).toBe(false)
    expect(mayRetry(UNSENT, { ...attempt, method: 'POST' })).toBe(true)
    expect(mayRetry(LOST, { ...attempt, hasOther: false })).toBe(true)
  })

  it.each([
    ['a failure that is not of the sending', null, {}],
    ['a response that has started', UNSENT, { responseStarted: true }],
    ['a body that is no longer whole', UNSENT, { bodyTaken: true }],
    ['two attempts', UNSENT, { attempts: 2 }],
  ])('never after %s', (_, facts, more) => {
    expect(mayRetry(facts, { ...attempt, ...more })).toBe(false)
  })
})

it('RFC 9110, 9.2.2 names the methods', () => {
  expect([...idempotent].sort()).toEqual(['DELETE', 'GET', 'HEAD', 'OPTIONS', 'PUT', 'TRACE'])
})
