// The per-request record that every phase reads and writes, from the request's head to the access log. Beside data it has the three
// objects that act for it: the client's side, the body on its way, and whoever holds the exchange between two events. It knows them by their
// interfaces alone. All fields are set in the constructor, so that every exchange has one hidden class. Runs per request.
import type { Consumer, Endpoint, LimitPolicy, Route, Service } from '../config/compile.js'
import type { Downstream, DownstreamOwner } from './downstream.js'
import type { Fields } from './fields.js'
import type { OutcomeCode } from './outcome.js'
import type { Upload } from './upload.js'

/** Whoever holds the exchange between two events: the body reader, the digest pool, the forwarding. */
export interface Holder {
  /** The exchange ends without it: the client left, or an exception was thrown. Gives back all that it holds. */
  abandon(): void
}

/** Where an exchange goes that ends out of turn: the phases of its generation. */
export interface ExchangeEnds {
  /** By an exception. Throws nothing. */
  crash(exchange: Exchange, error: unknown): void
  clientLeft(exchange: Exchange): void
}

/** Before its phases have it. */
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
  /** What the path means (config/patterns.ts): for everything else. */
  canonicalPath: string
  /** Without the question mark; '' where there is none, and where it is empty. */
  readonly query: string
  /** There was a question mark. */
  readonly hasQuery: boolean
  /** Of a target in absolute-form, as it was sent; '' in origin-form. */
  authority = ''
  /** Lower case, without the port; '' where there is none. */
  host = ''
  /** The client speaks HTTP/1.0: the acceptor's relay has put it into HTTP/1.1. */
  isHttp10 = false
  readonly fields: Fields
  /** Address of the socket's other end. */
  peerAddress = ''
  /** The peer is one of the configured trusted proxies. */
  peerTrusted = false
  /** The caller's address: the peer's, or the one that trusted proxies vouch for. */
  clientAddress = ''
  /** The client's connection is TLS. */
  secure = false
  /** What the client's certificate calls it, of the kind that tls.clientName says; null where it has shown none. */
  certificateNames: readonly string[] | null = null
  /** Declared length; -1 when the body is chunked, 0 when there is none. */
  contentLength = 0
  /** There was a Content-Length, if only of 0. */
  declaresLength = false
  /** The options that the Connection fields list, in lower case; null where there is none. */
  connection: ReadonlySet<string> | null = null
  /** The whole body where the signature covers it. */
  body: Buffer | null = null
  /** The body on its way through, where it is not read whole. */
  upload: Upload | null = null
  /** Memory that its body takes in this worker, as body-memory.ts counts it. */
  heldBytes = 0

  // What the phases decided.
  rid = ''
  route: Route | null = null
  /** How many of the route's phases it has begun. */
  phase = 0
  /** The one that was asked last: the route's, until its fallback asks another one. Null where none is asked. */
  service: Service | null = null
  /** Position among the route's `auth` of the kind of credentials that decides. */
  authAt = 0
  consumer: Consumer | null = null
  /** Whom the credentials claim to be of, unproven; only where limits count guesses by that. */
  claimed = ''
  /** The same for the log, where they proved wrong or were not asked about. */
  tried = ''
  /** What tells the caller's signature from all others of the same consumer; '' where credentials are of another kind. */
  signature = ''
  /** Unix time from which that signature is not accepted any more; 0 where there is none. */
  signatureUntilSeconds = 0
  /** An RFC 9421 signature covers Content-Digest, so the body must be what that says. */
  digestCovered = false
  endpoint: Endpoint | null = null
  /** The policy that RateLimit headers speak of: the one that refused, else of those with `headers` the one with least left; or null. */
  limit: LimitPolicy | null = null
  limitRemaining = 0
  /** Whole seconds until the bucket of `limit` is full, and until one more request is admitted. */
  limitResetSeconds = 0
  limitRetrySeconds = 0
  /** Whole seconds until the breaker that refused it lets a call through. */
  retryAfterSeconds = 0
  /** A policy in report mode would have refused. */
  limitReported = false
  /** Why the route's fallback answers, and not its handler. */
  fallback: OutcomeCode | '' = ''

  /** Told when the exchange ends without it. */
  holder: Holder | null = null
  /** Logged and counted; nothing may happen to it any more. */
  concluded = false

  // How it ended, for the log and the counters.
  /** Status sent to the client, 499 where it left first, 0 while undecided. */
  status = 0
  code: OutcomeCode | '' = ''
  reason = ''
  bytesIn = 0
  bytesOut = 0
  attempts = 0
  upstreamStartUs = 0
  /** Segment clock, when the upstream's part was over; 0 where it had none. */
  endUs = 0
  /** The service's own time from the first attempt to its last byte: without what was waited for the client. */
  upstreamUs = 0

  /** Of the phases that it passes. */
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
   * The one exit for exceptions: called by whatever calls into JavaScript for this exchange and catches one. Throws nothing.
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
