// The per-request record that every phase reads and writes, from the request's head to the access log. Besides data it
// refers to the three objects that act for the exchange: the client's side, the streamed body, and the holder between
// two events. It knows them by their interfaces alone. The constructor sets all fields, so that every exchange has one
// hidden class. Runs per request.
import type { Consumer, Endpoint, LimitPolicy, Route, Service } from '../config/compile.js'
import type { RetryReason } from '../config/retries.js'
import type { ClientDeadline } from './client-deadline.js'
import type { Downstream, DownstreamOwner } from './downstream.js'
import type { Fields } from './fields.js'
import type { OutcomeCode } from './outcome.js'
import type { Upload } from './upload.js'

/** Holds the exchange between two events: the body reader, the digest pool, the handler. */
export interface Holder {
  /** The exchange ends early: the client left, or an exception was thrown. Gives back all that it holds. */
  abandon(): void
}

/** Ends an exchange early: the phases of its generation do. */
export interface ExchangeEnds {
  /** An exception was thrown on its way. Throws nothing. */
  crash(exchange: Exchange, error: unknown): void
  clientLeft(exchange: Exchange): void
}

/** Until the phases have taken the exchange. */
const NO_PHASES: ExchangeEnds = {
  crash: (_, error) => {
    throw error
  },
  clientLeft: () => {},
}

export class Exchange implements DownstreamOwner {
  /** The client's side. */
  readonly downstream: Downstream
  /** Microseconds on the segment's clock (state/segment.ts) when the request head was complete. */
  readonly startUs: number

  // The request as it arrived. Values of fields are bytes, a character each (RFC 9110, 5.5).
  /** Upper case. */
  readonly method: string
  /** Origin-form path without the query, as it was sent: for the signature and the log. */
  readonly path: string
  /** The path in canonical form (config/patterns.ts): for everything else. */
  canonicalPath: string
  /** Without the question mark; '' where the target has no query or an empty one. */
  readonly query: string
  /** The target has a question mark. */
  readonly hasQuery: boolean
  /** The authority of a target in absolute-form, as it was sent; '' in origin-form. */
  authority = ''
  /** The host that the request is for, in lower case, without the port; '' where it names none. */
  host = ''
  /** The client speaks HTTP/1.0: the acceptor's relay has put it into HTTP/1.1. */
  isHttp10 = false
  readonly fields: Fields
  /** The address at the other end of the client's connection. */
  peerAddress = ''
  /** The peer is one of the configured trusted proxies. */
  peerTrusted = false
  /** The client's address: the peer's, or the one that trusted proxies vouch for. */
  clientAddress = ''
  /** The client's connection is TLS. */
  secure = false
  /** The client's names in its certificate, of the kind that tls.clientName selects; null without a certificate. */
  certificateNames: readonly string[] | null = null
  /** The declared length of the body; -1 where it is chunked, 0 where the request has none. */
  contentLength = 0
  /** The request has a Content-Length, if only of 0. */
  declaresLength = false
  /** The options that the Connection fields list, in lower case; null without such a field. */
  connection: ReadonlySet<string> | null = null
  /** Until when the client waits; null where it does not say. */
  deadline: ClientDeadline | null = null
  /** The whole body, where the signature covers it. */
  body: Buffer | null = null
  /** The streamed body, where it is not read whole. */
  upload: Upload | null = null
  /** Bytes of this worker's memory that its body takes, as body-memory.ts counts them. */
  heldBytes = 0

  // What the phases decided.
  rid = ''
  route: Route | null = null
  /** How many of the route's phases it has begun. */
  phase = 0
  /** The service that was asked last: the route's, or its fallback's. Null if the handler asks none. */
  service: Service | null = null
  /** Position among the route's `auth` of the kind of credentials that decides. */
  authAt = 0
  consumer: Consumer | null = null
  /** The name that the credentials claim, unproven; only where limits count guesses by it. */
  claimed = ''
  /** The same for the log, where the credentials proved wrong or were not checked. */
  tried = ''
  /**
   * Tells the request's signature from all others of the same consumer; '' where the credentials are of another kind.
   */
  signature = ''
  /** Unix time from which that signature is not accepted any more; 0 without a signature. */
  signatureUntilSeconds = 0
  /** An RFC 9421 signature covers Content-Digest, so the body must match that digest. */
  digestCovered = false
  endpoint: Endpoint | null = null
  /** Where the service balances by a hash: of what decides about the endpoint. 0 where the request lacks it. */
  balanceKey = 0
  /**
   * The policy that the RateLimit fields describe: the one that refused the request, else the one with the least left
   * among those with `headers`; or null.
   */
  limit: LimitPolicy | null = null
  limitRemaining = 0
  /** Whole seconds until the bucket of `limit` is full, and until one more request is admitted. */
  limitResetSeconds = 0
  limitRetrySeconds = 0
  /** Whole seconds until the breaker that refused it lets a call through. */
  retryAfterSeconds = 0
  /** Its entries in the table of requests in flight; null without such a limit. */
  inFlightHeld: readonly number[] | null = null
  /** A policy in report mode would have refused. */
  limitReported = false
  /** Why the route's fallback answers, and not its handler. */
  fallback: OutcomeCode | '' = ''

  /** Told when the exchange ends early. */
  holder: Holder | null = null
  /** Logged and counted; nothing may happen to it any more. */
  concluded = false

  // How it ended, for the log and the counters.
  /** The status sent to the client, 499 where it left first, 0 while undecided. */
  status = 0
  code: OutcomeCode | '' = ''
  reason = ''
  bytesIn = 0
  bytesOut = 0
  attempts = 0
  /** Why its last attempt followed another one. */
  retried: RetryReason | '' = ''
  upstreamStartUs = 0
  /** When the upstream's part was over, on the segment's clock; 0 where it had none. */
  endUs = 0
  /** The service's own time from the first attempt to its last byte, without the time spent waiting for the client. */
  upstreamUs = 0

  /** The phases that it passes. */
  ends: ExchangeEnds = NO_PHASES

  constructor(
    downstream: Downstream,
    startUs: number,
    method: string,
    path: string,
    query: string | undefined,
    fields: Fields,
  ) {
    this.downstream = downstream
    this.startUs = startUs
    this.method = method
    this.path = path
    this.canonicalPath = path
    this.query = query ?? ''
    this.hasQuery = query !== undefined
    this.fields = fields
  }

  /**
   * The one exit for exceptions. Code that is called by an event (of uWS, an upstream, a timer, a promise) catches what
   * the exchange's code throws, and calls this. Throws nothing.
   */
  crash(error: unknown): void {
    this.ends.crash(this, error)
  }

  clientLeft(): void {
    this.ends.clientLeft(this)
  }

  /** First value of a field, by its lower-case name; '' where it is missing. */
  header(name: string): string {
    return this.fields.get(name)
  }

  /** name, value, name, value … names in lower case, in order of arrival. */
  get headers(): readonly string[] {
    return this.fields.pairs
  }
}
