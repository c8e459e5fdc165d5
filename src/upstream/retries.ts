// Whether a request is sent again, whatever layer saw it fail: these rules stand nowhere else. A layer says what it knows of the request
// (SendFacts). http1/ asks mayResend, and sends it on another connection to the same endpoint within the same attempt. The proxy handler asks mayRetry,
// and begins another attempt. Pure.

/** What a layer knows of a request whose response did not come, or not as a whole. */
export interface SendFacts {
  /** Some of the request may have reached the upstream. */
  readonly written: boolean
  /** Some of the response has come. */
  readonly responseStarted: boolean
  /** The connection had answered other requests before. Null: the client does not know. */
  readonly reusedConnection: boolean | null
  /** Other requests on the same connection were to be answered first. */
  readonly behindOthers: boolean
  /** The client had sent it twice already. */
  readonly resent: boolean
}

const none = { responseStarted: false, reusedConnection: null, behindOthers: false, resent: false }
/** The upstream got nothing of it. */
export const UNSENT: SendFacts = Object.freeze({ ...none, written: false })
/** The connection was lost, and the client does not know more. */
export const LOST: SendFacts = Object.freeze({ ...none, written: true })

/** Of one exchange, the services that its fallbacks ask included. Each attempt may send its request once more by itself (mayResend). */
const MOST_ATTEMPTS = 2

/** RFC 9110, 9.2.2: doing it twice is as doing it once. */
export const idempotent: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/**
 * On another connection to the same endpoint.
 * @param repeatable the method is idempotent, and the whole body is still there
 */
export function mayResend(facts: SendFacts, repeatable: boolean): boolean {
  // The upstream cannot have acted on it, whatever the method is (RFC 9110, 9.2.2).
  if (!facts.written) return true
  if (!repeatable || facts.responseStarted || facts.resent) return false
  // RFC 9112, 9.3.1: a connection that was idle may be closed at any time, and the request then crossed that close. 9.3.2: what stands behind
  // others that were not answered may be sent again once the connection is lost, or the one before it is late. A fresh connection that is lost
  // may have been lost because of this very request: sending that again would only do more harm.
  return facts.behindOthers || facts.reusedConnection !== false
}

/** What the handler knows of an attempt that failed. */
export interface AttemptFacts {
  readonly method: string
  readonly responseStarted: boolean
  /** Some of a streamed body was taken: another attempt could not have the whole. */
  readonly bodyTaken: boolean
  /** So far. */
  readonly attempts: number
  /** Of the service. */
  readonly endpoints: number
}

/**
 * At another endpoint, or where there is none, at the same.
 * @param sent null: neither sending nor the connection was what failed – a deadline passed, the response is not HTTP, the request cannot be forwarded
 */
export function mayRetry(sent: SendFacts | null, attempt: AttemptFacts): boolean {
  if (sent === null || attempt.responseStarted || attempt.bodyTaken || attempt.attempts >= MOST_ATTEMPTS) return false
  // An endpoint that cannot be reached will not be a moment later.
  if (!sent.written) return attempt.endpoints > 1
  return mayResend(sent, idempotent.has(attempt.method))
}
