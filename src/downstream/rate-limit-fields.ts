// The RateLimit fields of a response (draft-ietf-httpapi-ratelimit-headers-10): a policy, and what is left of it. What
// they say was decided by policy/rate-limit.ts, and lies in the exchange. Runs per response with such fields.
import type { LimitMeasure, LimitPolicy } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'

/**
 * `RateLimit-Policy` depends only on the policy, so it is made once. A quota has no `w`: days and months differ in
 * length.
 */
export function rateLimitPolicyHeader(limit: LimitPolicy): string {
  let text = policyHeaders.get(limit)
  if (text === undefined) {
    const { measure } = limit
    text = `${quoted(limit.name)};q=${measure.quantity}${unitOf(measure)}`
    policyHeaders.set(limit, text)
  }
  return text
}

/**
 * `RateLimit`: what is left of exchange.limit and the seconds until it is full again. Only for an exchange with a
 * limit.
 */
export function rateLimitHeader(exchange: Exchange): string {
  const limit = exchange.limit as LimitPolicy
  let name = names.get(limit)
  if (name === undefined) {
    name = quoted(limit.name)
    names.set(limit, name)
  }
  // When requests in flight end nobody knows.
  if (limit.measure.kind === 'inFlight') return `${name};r=${exchange.limitRemaining}`
  return `${name};r=${exchange.limitRemaining};t=${exchange.limitResetSeconds}`
}

function unitOf(measure: LimitMeasure): string {
  if (measure.kind === 'inFlight') return ';qu="concurrent-requests"'
  return measure.kind === 'quota' ? '' : `;w=${measure.windowSeconds}`
}

const policyHeaders = new WeakMap<LimitPolicy, string>()
const names = new WeakMap<LimitPolicy, string>()

/** RFC 9651, 3.3.3: a String is printable ASCII. Other characters of a name are written as percent-encoded UTF-8. */
function quoted(name: string): string {
  const ascii = name.replace(/[^\x20-\x7e]+/g, (run) =>
    Buffer.from(run)
      .toString('hex')
      .replace(/../g, (byte) => `%${byte.toUpperCase()}`),
  )
  return `"${ascii.replace(/["\\]/g, '\\$&')}"`
}
