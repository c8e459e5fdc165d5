// Config → RouteTable: everything that depends on the route alone is computed here, once, at start. Runs in the primary (to refuse a
// bad config) and in every worker (to use it). Imports no other phase.

export interface Consumer {
  readonly name: string
  /** Position in RouteTable.consumers. */
  readonly index: number
  /** Several at once while one is being rotated out. UTF-8. */
  readonly secrets: readonly string[]
  readonly algorithm: 'sha256' | 'sha1' | 'md5'
  /** `legacy` signs x-source LF x-time alone. */
  readonly signs: 'request' | 'legacy'
}

export interface Endpoint {
  /** `http://127.0.0.1:9000`: scheme, host and port, never a path or a trailing slash. */
  readonly origin: string
  /** host[:port] as it goes into the Host header. */
  readonly authority: string
  /** Position among the endpoints of all services: its slot in the health table. */
  readonly index: number
}

export interface BreakerRules {
  readonly windowMs: number
  readonly minRequests: number
  readonly failureRatio: number
  readonly slowCallMs: number
  readonly slowRatio: number
  readonly openForMs: number
  readonly maxOpenForMs: number
  readonly probes: number
  readonly rampMs: number
  /** Upstream statuses that count as failures, next to connect errors, resets and timeouts. */
  readonly failureStatuses: ReadonlySet<number>
}

export interface HealthCheck {
  readonly path: string
  readonly intervalMs: number
  readonly timeoutMs: number
  readonly healthyAfter: number
  readonly unhealthyAfter: number
}

export interface Service {
  readonly name: string
  readonly index: number
  readonly endpoints: readonly Endpoint[]
  readonly connectTimeoutMs: number
  readonly firstByteTimeoutMs: number
  readonly totalTimeoutMs: number
  readonly breaker: BreakerRules | null
  readonly health: HealthCheck | null
}

export type LimitKey = { readonly kind: 'consumer' | 'address' | 'route' } | { readonly kind: 'header'; readonly header: string }

export interface LimitPolicy {
  /** Bucket namespace in the rate table: the named limit, or `<route>#<position>`. What keeps its name keeps its state. */
  readonly name: string
  readonly by: readonly LimitKey[]
  /** `quantity` requests per `windowSeconds`. */
  readonly quantity: number
  readonly windowSeconds: number
  /** The bucket's size: from idle exactly that many pass at once. */
  readonly burst: number
  /** What one request takes from the bucket; by upper-case method where it differs. */
  readonly cost: number
  readonly costByMethod: ReadonlyMap<string, number> | null
  readonly mode: 'enforce' | 'report'
  readonly onFull: 'allow' | 'deny'
  /** RateLimit and RateLimit-Policy also on answers that were admitted. */
  readonly headers: boolean
}

export interface Route {
  readonly name: string
  readonly index: number
  readonly service: Service
  readonly auth: 'x-m' | 'none'
  /** With x-m: the body is part of what is signed, so it is read whole before anything is forwarded. */
  readonly signBody: boolean
  readonly maxSkewSeconds: number
  /** Names of the consumers let in; null lets in everyone who is authenticated. */
  readonly allow: ReadonlySet<string> | null
  readonly limits: readonly LimitPolicy[]
  /** A caller's own x-rid is kept. */
  readonly trustRid: boolean
  readonly preserveHost: boolean
  /** The path prefix taken off before forwarding, or null. */
  readonly stripPrefix: string | null
  /** The matched prefix is replaced with this; null leaves the path alone. */
  readonly rewrite: string | null
  readonly maxBodyBytes: number
  /** The access line shows the query as well. */
  readonly logQuery: boolean
  readonly accessLog: boolean
}

export interface RouteTable {
  readonly routes: readonly Route[]
  readonly services: readonly Service[]
  readonly endpoints: readonly Endpoint[]
  readonly consumers: readonly Consumer[]
  readonly consumersByName: ReadonlyMap<string, Consumer>
}
