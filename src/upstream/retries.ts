// Decides whether a request is sent again, whatever layer saw it fail; no other file has such rules. A layer says what
// it knows of the request (SendFacts). http1/ asks mayResend, and sends the request on another connection to the same
// endpoint, within the same attempt. The proxy handler asks mayRetry, and begins another attempt. Pure.

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

/**
 * For one exchange, those at a fallback's service included. Within each of them the request may be sent once more
 * (mayResend).
 */
const MOST_ATTEMPTS = 2

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
  readonly responseStarted: boolean
  /** Some of a streamed body is gone: another attempt could not send the whole. */
  readonly bodyTaken: boolean
  /** So far. */
  readonly attempts: number
  /** The service has another endpoint. */
  readonly hasOther: boolean
}

/**
 * At the next endpoint, which is the same one where the service has no other.
 * @param sent null: another attempt would not help. A deadline has passed, the response is not HTTP, or the request
 * cannot be forwarded
 */
export function mayRetry(sent: SendFacts | null, attempt: AttemptFacts): boolean {
  if (sent === null || attempt.responseStarted || attempt.bodyTaken || attempt.attempts >= MOST_ATTEMPTS) return false
  // The same endpoint could not be reached a moment later either.
  if (!sent.written) return attempt.hasOther
  return mayResend(sent, idempotent.has(attempt.method))
}
