// What a request meets: routes, services, consumers and limits in the form in which the phases read them, with all
// worked out that depends on the route alone. Types, and nothing else; compile.ts makes them of a configuration.
import type { JsonWebKey } from 'node:crypto'
import type ipaddr from 'ipaddr.js'
import type { BulkheadRules } from './bulkhead.js'
import type { Period } from './calendar.js'
import type { CredentialKind } from './credentials.js'
import type { HealthCheck } from './health.js'
import type { HedgeRules } from './hedge.js'
import type { HttpSignatureKey, HttpSignatureRules } from './http-signature.js'
import type { OutlierRules } from './outliers.js'
import type { PathPattern, PathRules } from './patterns.js'
import type { RetryRules } from './retries.js'
import type { SheddingRules } from './shedding.js'

export interface Consumer {
  readonly name: string
  /** Position in RouteTable.consumers. */
  readonly index: number
  /** Several at once while one is being rotated out. UTF-8. */
  readonly secrets: readonly string[]
  readonly algorithm: 'sha256' | 'sha1' | 'md5'
  /** `legacy` signs x-source LF x-time alone. */
  readonly signs: 'request' | 'legacy'
  /** SHA-256 of each, as sha256:HEX. */
  readonly apiKeys: readonly string[]
  /** sha256:HEX or $scrypt$…; null where it has none. */
  readonly password: string | null
  readonly groups: readonly string[]
  readonly httpSignatureKeys: readonly HttpSignatureKey[]
  /** What its certificates call it. */
  readonly certificateNames: readonly string[]
}

/** Someone whose tokens are believed. */
export interface Issuer {
  readonly name: string
  /** The iss claim. */
  readonly issuer: string
  readonly audience: readonly string[]
  readonly algorithms: readonly string[]
  /** For HMAC; then there are neither keys nor a URL. */
  readonly secrets: readonly string[]
  /** Public keys, as JWKs. */
  readonly keys: readonly JsonWebKey[]
  readonly jwks: { readonly url: string; readonly maxAgeMs: number; readonly cooldownMs: number } | null
  readonly leewaySeconds: number
  readonly consumerClaim: string
  readonly groupsClaim: string | null
  readonly groups: readonly string[]
  readonly admitsUnlisted: boolean
  /** By what consumerClaim says. */
  readonly consumers: ReadonlyMap<string, Consumer>
}

export interface Endpoint {
  /**
   * `http://127.0.0.1:9000`: scheme, host and port, never a path or a trailing slash. Of a Unix socket `unix:` and
   * its path.
   */
  readonly origin: string
  /** host[:port] as it goes into the Host header; `localhost` over a Unix socket. */
  readonly authority: string
  /**
   * Its host, or what `tls.serverName` says in its place: the name a TLS connection is opened for, whatever Host a
   * request has.
   */
  readonly serverName: string
  /** The absolute path of the Unix socket that it is reached by; null: over TCP. */
  readonly socketPath: string | null
  /** Its share of the requests, next to the weights of the others. */
  readonly weight: number
  /** '' where it has none. */
  readonly zone: string
  /**
   * In the endpoint table. The same as long as service and origin keep their names, from one configuration to the next.
   */
  readonly slot: number
}

/** What requests for the same endpoint have in common. */
type HashPart = RequestKey | { readonly kind: 'path' }

export type BalanceRules =
  | { readonly kind: 'p2c' | 'round-robin' | 'ewma' }
  | {
      readonly kind: 'hash'
      readonly part: HashPart
      /** No endpoint has more than this times the mean in flight. Infinity: as many as come. */
      readonly bounded: number
    }

export interface BreakerRules {
  readonly windowMs: number
  readonly minRequests: number
  readonly failureRatio: number
  /** Infinity where no call counts as slow. */
  readonly slowCallMs: number
  readonly slowRatio: number
  readonly openForMs: number
  readonly maxOpenForMs: number
  readonly probes: number
  readonly rampMs: number
  /** Upstream statuses that count as failures, next to connect errors, resets and timeouts. */
  readonly failureStatuses: ReadonlySet<number>
}

/** Towards https endpoints. PEM texts; undefined where there are none. */
export interface UpstreamTls {
  readonly ca: string | undefined
  readonly cert: string | undefined
  readonly key: string | undefined
  /** Asked for and checked in place of the endpoint's host. */
  readonly serverName: string | undefined
  readonly verify: boolean
}

export interface Service {
  readonly name: string
  readonly index: number
  /** In the tables that have a place for each service. The same as long as the service keeps its name. */
  readonly slot: number
  readonly endpoints: readonly Endpoint[]
  readonly connectTimeoutMs: number
  /** This and the next two: Infinity where there is none. */
  readonly firstByteTimeoutMs: number
  /** Longest silence within the answer. */
  readonly idleTimeoutMs: number
  readonly totalTimeoutMs: number
  /** What speaks to its cleartext endpoints; https ones always get undici. */
  readonly client: 'lean' | 'undici'
  /** Requests in flight on one connection at most. */
  readonly pipelining: number
  readonly retries: RetryRules
  readonly tls: UpstreamTls
  readonly balance: BalanceRules
  /** In which an endpoint that comes back gets a growing share of the requests; 0: it gets its whole share at once. */
  readonly slowStartMs: number
  readonly breaker: BreakerRules | null
  /** Null: as many requests as come may be in flight. */
  readonly bulkhead: BulkheadRules | null
  readonly health: HealthCheck | null
  /** Null where the service wants none. They act where it has two endpoints or more. */
  readonly outliers: OutlierRules | null
}

export type LimitKey =
  | { readonly kind: 'consumer' | 'claimed' | 'address' | 'route' }
  | { readonly kind: 'header'; readonly header: string }

/** How a limit counts; what each of them promises is in docs/limits.md. */
export type LimitMeasure =
  /** Never more than `quantity` in any `windowSeconds`. */
  | { readonly kind: 'window'; readonly quantity: number; readonly windowSeconds: number }
  /** `quantity` per `windowSeconds` on average; from idle `burst` pass at once. */
  | { readonly kind: 'bucket'; readonly quantity: number; readonly windowSeconds: number; readonly burst: number }
  /** `quantity` in each calendar period of a time zone. */
  | { readonly kind: 'quota'; readonly quantity: number; readonly period: Period; readonly timezone: string }
  /** At most `quantity` at the same time. */
  | { readonly kind: 'inFlight'; readonly quantity: number }

export interface LimitPolicy {
  /**
   * Namespace of its keys in the rate table: the named limit, or `<route>#<position>`. What keeps its name keeps its
   * state.
   */
  readonly name: string
  readonly by: readonly LimitKey[]
  readonly measure: LimitMeasure
  /**
   * The same limit for consumers who have another measure: the one for their name, else the first for a group of
   * theirs.
   */
  readonly tiers: readonly LimitTier[]
  /** What one request takes; by upper-case method where it differs. */
  readonly cost: number
  readonly costByMethod: ReadonlyMap<string, number> | null
  readonly on: 'request' | 'failedAuth'
  readonly mode: 'enforce' | 'report'
  readonly onFull: 'allow' | 'deny'
  /** RateLimit and RateLimit-Policy also on answers that were admitted. */
  readonly headers: boolean
}

export interface LimitTier {
  /** One of the two is null. */
  readonly consumer: string | null
  readonly group: string | null
  readonly policy: LimitPolicy
}

/** What match.ts compares a request with. */
export interface RouteMatch {
  /** Lower case, exact or `*.suffix`; none at all means any. */
  readonly hosts: readonly string[]
  readonly path: PathPattern
  /** Of A to Z, in the literals of the path. */
  readonly caseInsensitive: boolean
  /** The path, which is exact, matches with a slash behind it as well. */
  readonly slashIgnored: boolean
  /** Upper case; null lets all through. */
  readonly methods: ReadonlySet<string> | null
  /** Names in lower case and the values they must have, a character a byte. */
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly priority: number
}

/** Which handler answers, and how. Each kind of handler (handlers.ts) adds fields of its own. */
export interface HandlerRules {
  /** Name of the kind. */
  readonly kind: string
  /** The one service that the handler forwards to; null where it answers in another way. */
  readonly service: Service | null
}

export interface ProxyRules extends HandlerRules {
  readonly kind: 'proxy'
  readonly service: Service
}

/** What stays the same over the requests of one caller; a string of the request, '' where it has none. */
export type RequestKey =
  | { readonly kind: 'consumer' | 'address' }
  /** `name` of a header is in lower case. */
  | { readonly kind: 'header' | 'cookie'; readonly name: string }

/** One of the services that a route's requests are divided among. */
export interface SplitSide {
  readonly service: Service
  /** Its share is this of the sum of all weights. 0: it gets no requests. */
  readonly weight: number
}

export interface SplitRules extends HandlerRules {
  readonly kind: 'split'
  readonly service: null
  readonly sides: readonly SplitSide[]
  /** Requests with the same key go to the same service. Null: each request is divided by itself. */
  readonly sticky: RequestKey | null
}

/** A service that gets copies of a route's requests, whose responses nobody sees. */
export interface MirrorRules {
  readonly service: Service
  /** Of the requests, more than 0 and at most 1. */
  readonly share: number
  /** Requests with a larger body are not copied. */
  readonly maxBodyBytes: number
}

export interface StaticRules extends HandlerRules {
  readonly kind: 'static'
  readonly service: null
  readonly status: number
  /** name, value, name, value … */
  readonly headers: readonly string[]
  readonly body: Buffer
}

export interface Route {
  readonly name: string
  /** Position in the configuration. */
  readonly index: number
  /** In the counters. The same as long as the route keeps its name, from one configuration to the next. */
  readonly slot: number
  readonly match: RouteMatch
  /** Position in IMPORTANCES. */
  readonly importance: number
  readonly handler: HandlerRules
  /** Null where nobody gets copies. */
  readonly mirror: MirrorRules | null
  /** What callers may be known by, in the order of the file; none at all: they are not. */
  readonly auth: readonly CredentialKind[]
  /** The fields of a 401 that ask for these, each behind a CRLF. */
  readonly challenge: string
  /** With x-m: the body is part of what is signed, so it is read whole before anything is forwarded. */
  readonly signBody: boolean
  /** How old x-time may be, and how far ahead. */
  readonly maxSkewSeconds: number
  readonly maxLeadSeconds: number
  /** Null where `auth` does not have it. */
  readonly httpSignature: HttpSignatureRules | null
  /** A signature is accepted once. */
  readonly replayOnce: boolean
  /** Names of the consumers let in; null lets in everyone who is authenticated. */
  readonly allow: ReadonlySet<string> | null
  /** Groups let in besides. Apart from the names, since a token may claim any of those. */
  readonly allowGroups: readonly string[]
  /** Null where every address is let in. */
  readonly addresses: { readonly allow: readonly AddressRange[] | null; readonly deny: readonly AddressRange[] } | null
  /** Names of request fields that end here, in lower case. */
  readonly strippedFields: readonly string[]
  /** Parameter of the query that ends here, and the one that the log does not show; null: none. */
  readonly strippedParameter: string | null
  readonly hiddenParameter: string | null
  /** On requests, asked once it is known who calls. */
  readonly limits: readonly LimitPolicy[]
  /** On requests in flight, asked before those. */
  readonly inFlightLimits: readonly LimitPolicy[]
  /** On credentials that prove wrong, asked before they are checked. */
  readonly guessLimits: readonly LimitPolicy[]
  /** A caller's own x-rid is kept. */
  readonly trustRid: boolean
  readonly preserveHost: boolean
  /**
   * The matched literal path, taken off before forwarding: what is left starts with '/', or gets one.
   * Null leaves the path alone.
   */
  readonly stripPrefix: string | null
  /**
   * Goes where stripPrefix was; without a trailing slash after a prefix, so '' for `/`. Null where nothing does. Only
   * together with stripPrefix.
   */
  readonly rewrite: string | null
  /** Answers where the handler fails; null where nothing does. */
  readonly fallback: HandlerRules | null
  readonly hedge: HedgeRules | null
  /** Number.MAX_SAFE_INTEGER where it is unlimited. */
  readonly maxBodyBytes: number
  /** The access line shows the query as well. */
  readonly logQuery: boolean
  readonly accessLog: boolean
}

/** For ipaddr's `match`: an address of the same kind, and how many of its bits count. */
export type AddressRange = readonly [ipaddr.IPv4 | ipaddr.IPv6, number]

/** Null where the listener speaks cleartext. */
export interface ListenerRules {
  readonly minVersion: string
  readonly clientAuth: 'none' | 'request' | 'require'
  readonly clientName: 'cn' | 'dns' | 'uri' | 'email'
}

/** One service of a route's split, or of its mirror: where its requests are counted (state/branch-counts.ts). */
export interface Branch {
  readonly kind: 'split' | 'mirror'
  readonly route: string
  readonly service: string
  /** Of the route's requests. */
  readonly share: number
  /** In the table of branches. The same as long as route and service keep their names. */
  readonly slot: number
}

export interface RouteTable {
  readonly tls: ListenerRules | null
  /** Null where an overloaded gateway refuses nothing. */
  readonly shedding: SheddingRules | null
  readonly routes: readonly Route[]
  readonly services: readonly Service[]
  readonly endpoints: readonly Endpoint[]
  readonly branches: readonly Branch[]
  readonly consumers: readonly Consumer[]
  readonly consumersByName: ReadonlyMap<string, Consumer>
  readonly trustedProxies: readonly AddressRange[]
  /** What becomes of a header field with a `_` in its name. */
  readonly underscoresInHeaders: 'drop' | 'refuse' | 'allow'
  readonly paths: PathRules
  /** Where API keys are looked for: a header in lower case, and a parameter of the query or null. */
  readonly apiKeyHeader: string
  readonly apiKeyParameter: string | null
  readonly issuers: readonly Issuer[]
}

/**
 * Where services, routes, endpoints and branches have their places in shared tables, in the order of RouteTable. Given
 * out by the primary.
 */
export interface TableSlots {
  readonly services: readonly number[]
  readonly routes: readonly number[]
  readonly endpoints: readonly number[]
  readonly branches: readonly number[]
}
