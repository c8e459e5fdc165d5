// Decides whether a request is sent again, whatever layer saw it fail; no other file has such rules. A layer says what
// it knows of the request (SendFacts). http1/ asks mayResend, and sends the request on another connection to the same
// endpoint, within the same attempt. The proxy handler asks whither, and begins another attempt. How many requests are
// sent again is bounded in retry-budget.ts. Pure.
import type { RetryReason, RetryRules } from '../config/retries.js'

/** What a layer knows of a request whose response did not come, or not as a whole. */
export interface SendFacts {
  /** Some of the request may have reached the upstream. */
  readonly written: boolean
  /** Some of the response has come. */
  readonly responseStarted: boolean
  /** The connection had answered other requests before. Null: the client does not know. */
  readonly reusedConnection: boolean | null
  /** Other requests on the same connection still waited for their responses, before this one. */
  readonly behindOthers: boolean
  /** The client had sent it twice already. */
  readonly resent: boolean
}

const none = { responseStarted: false, reusedConnection: null, behindOthers: false, resent: false }
/** Nothing of it has reached the upstream. */
export const UNSENT: SendFacts = Object.freeze({ ...none, written: false })
/** The connection was lost, and the client does not know more. */
export const LOST: SendFacts = Object.freeze({ ...none, written: true })

/** RFC 9110, 9.2.2: two requests have the effect of one. */
export const idempotent: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/**
 * On another connection to the same endpoint.
 * @param repeatable the method is idempotent, and the whole body is still there
 */
export function mayResend(facts: SendFacts, repeatable: boolean): boolean {
  // The upstream cannot have acted on it, whatever the method is (RFC 9110, 9.2.2).
  if (!facts.written) return true
  if (!repeatable || facts.responseStarted || facts.resent) return false
  // RFC 9112, 9.3.1: the upstream may close an idle connection at any time, also at the moment at which a request is
  // written to it. 9.3.2: a request behind others may be sent again when the connection is lost, or when the response
  // before it is late. But where a fresh connection is lost, this very request may be the cause: sending it again could
  // bring down the next instance.
  return facts.behindOthers || facts.reusedConnection !== false
}

/** What the handler knows of the attempt that failed. */
export interface AttemptFacts {
  readonly method: string
  /** Some of the response was given to the client, or is going to be. */
  readonly responseStarted: boolean
  /** Some of a streamed body is gone: another attempt could not send the whole. */
  readonly bodyTaken: boolean
  /** How long the body is, as far as it has come. */
  readonly bodyBytes: number
  /** So far, those at the service before a fallback's included. */
  readonly attempts: number
}

/** Where the next attempt may go: `anywhere` includes the endpoint that has just failed. */
export type Whither = 'nowhere' | 'elsewhere' | 'anywhere'

/**
 * After an attempt that failed, or whose response is not to be passed on.
 * @param reason null: another attempt would not help
 * @param sent what the endpoint's client knows; null where that is nothing
 */
export function whither(
  rules: RetryRules,
  reason: RetryReason | null,
  sent: SendFacts | null,
  attempt: AttemptFacts,
): Whither {
  if (reason === null || attempt.attempts >= rules.attempts || !rules.reasons.has(reason)) return 'nowhere'
  if (attempt.responseStarted || attempt.bodyTaken) return 'nowhere'
  // Whatever the method is. The same endpoint could not be reached a moment later either.
  if (sent !== null && !sent.written) return 'elsewhere'
  if (!idempotent.has(attempt.method) || attempt.bodyBytes > rules.maxBodyBytes) return 'nowhere'
  return sent !== null && mayResend(sent, true) ? 'anywhere' : 'elsewhere'
}

/**
 * Whether a second attempt may begin elsewhere beside the first, of which no response has come: `out`, because its
 * endpoint gets no more requests, or `hedge`, because it takes long.
 */
export function mayRace(rules: RetryRules, reason: 'out' | 'hedge', attempt: AttemptFacts): boolean {
  // A route that hedges has two attempts for that, whatever its service retries.
  const most = reason === 'hedge' ? Math.max(2, rules.attempts) : rules.attempts
  if (attempt.attempts >= most || attempt.responseStarted || attempt.bodyTaken) return false
  return idempotent.has(attempt.method) && attempt.bodyBytes <= rules.maxBodyBytes
}

/** A wait doubles up to this. */
const LONGEST_BACKOFF_MS = 10_000

/**
 * Full jitter: clients of one endpoint that failed at once do not come back at once.
 * @param attempts so far
 * @param same the endpoint that failed is asked again
 */
export function backoffMs(rules: RetryRules, attempts: number, same: boolean): number {
  if (!same && attempts < 2) return 0
  return Math.random() * Math.min(LONGEST_BACKOFF_MS, rules.backoffMs * 2 ** (attempts - 1))
}
