// Config → RouteTable: everything that depends on the route alone is computed here, once, at start. Runs in the primary (to refuse a
// bad config) and in every worker (to use it). Imports no other phase.
import type { JsonWebKey } from 'node:crypto'
import ipaddr from 'ipaddr.js'
import { CREDENTIALS, type CredentialKind, challengeFields, GROUP } from './credentials.js'
import { compileHttpSignature, type HttpSignatureKey, type HttpSignatureRules } from './http-signature.js'
import { canonicalHost, type PathPattern, type PathRules } from './patterns.js'
import { NO_TIMEOUT } from './quantities.js'
import { patternOf } from './references.js'
import type { Config, LimitConfig, RouteConfig } from './schema.js'
import type { Settings } from './settings.js'

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
  /** `http://127.0.0.1:9000`: scheme, host and port, never a path or a trailing slash. */
  readonly origin: string
  /** host[:port] as it goes into the Host header. */
  readonly authority: string
  /** Its host, or what `tls.serverName` says in its place: the name a TLS connection is opened for, whatever Host a request has. */
  readonly serverName: string
  /** Position among the endpoints of all services. */
  readonly index: number
  /** In the health table. The same as long as service and origin keep their names, from one configuration to the next. */
  readonly slot: number
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

export interface HealthCheck {
  readonly path: string
  readonly intervalMs: number
  readonly timeoutMs: number
  readonly healthyAfter: number
  readonly unhealthyAfter: number
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
  readonly tls: UpstreamTls
  readonly breaker: BreakerRules | null
  readonly health: HealthCheck | null
}

export type LimitKey =
  | { readonly kind: 'consumer' | 'address' | 'route' }
  | { readonly kind: 'header'; readonly header: string }

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

/** What ingress/match.ts compares a request with. */
interface RouteMatch {
  /** Lower case, exact or `*.suffix`; none at all means any. */
  readonly hosts: readonly string[]
  readonly path: PathPattern
  /** Upper case; null lets all through. */
  readonly methods: ReadonlySet<string> | null
  /** Names in lower case and the values they must have. */
  readonly headers: readonly (readonly [name: string, value: string])[]
  readonly priority: number
}

/** What is answered in place of a service that fails: by the gateway itself, or by another service. */
export type Fallback = { readonly service: Service } | StaticAnswer

export interface StaticAnswer {
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
  readonly service: Service
  /** What callers may be known by, in the order of the file; none at all: they are not. */
  readonly auth: readonly CredentialKind[]
  /** The fields of a 401 that ask for these, each behind a CRLF. */
  readonly challenge: string
  /** With x-m: the body is part of what is signed, so it is read whole before anything is forwarded. */
  readonly signBody: boolean
  readonly maxSkewSeconds: number
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
  readonly limits: readonly LimitPolicy[]
  /** A caller's own x-rid is kept. */
  readonly trustRid: boolean
  readonly preserveHost: boolean
  /**
   * The matched literal path, taken off before forwarding: what is left starts with '/', or gets one.
   * Null leaves the path alone.
   */
  readonly stripPrefix: string | null
  /** Goes where stripPrefix was; without a trailing slash after a prefix, so '' for `/`. Null where nothing does. Only together with stripPrefix. */
  readonly rewrite: string | null
  /** Number.MAX_SAFE_INTEGER where it is unlimited. */
  readonly fallback: Fallback | null
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

export interface RouteTable {
  readonly tls: ListenerRules | null
  readonly routes: readonly Route[]
  readonly services: readonly Service[]
  readonly endpoints: readonly Endpoint[]
  readonly consumers: readonly Consumer[]
  readonly consumersByName: ReadonlyMap<string, Consumer>
  readonly trustedProxies: readonly AddressRange[]
  /** What becomes of a header field with a `_` in its name. */
  readonly underscoresInHeaders: Config['underscoresInHeaders']
  readonly paths: PathRules
  /** Where API keys are looked for: a header in lower case, and a parameter of the query or null. */
  readonly apiKeyHeader: string
  readonly apiKeyParameter: string | null
  readonly issuers: readonly Issuer[]
}

const DEFAULT_MAX_SKEW_SECONDS = 300

/** Where routes and endpoints have their places in shared tables, by Route.index and Endpoint.index. Given out by the primary. */
export interface TableSlots {
  readonly routes: readonly number[]
  readonly endpoints: readonly number[]
}

/**
 * The same for the same input, in every process. Takes a config that load.ts let through: it has nothing left to refuse.
 * @param slots without them they are the indexes
 */
export function compile(config: Config, settings: Settings, slots?: TableSlots): RouteTable {
  const consumers = Object.entries(config.consumers).map(
    (
      [name, { secret, algorithm, signs, apiKeys, password, groups, httpSignatureKeys, certificate }],
      index,
    ): Consumer => ({
      name,
      index,
      secrets: secret,
      algorithm,
      signs,
      apiKeys,
      password: password ?? null,
      groups,
      httpSignatureKeys: Object.entries(httpSignatureKeys).map(([id, { algorithm, material }]) => ({
        id,
        algorithm,
        material,
      })),
      certificateNames: certificate,
    }),
  )
  const consumersByName = new Map(consumers.map((consumer) => [consumer.name, consumer]))
  const endpoints: Endpoint[] = []
  const services = Object.entries(config.services).map(([name, service], index) => {
    const own = service.endpoints.map((text, position): Endpoint => {
      const { origin, host, hostname } = new URL(text)
      const serverName = service.tls?.serverName ?? hostname
      const index = endpoints.length + position
      return { origin, authority: host, serverName, index, slot: slots?.endpoints[index] ?? index }
    })
    endpoints.push(...own)
    return compileService(name, index, service, own)
  })
  const servicesByName = new Map(services.map((service) => [service.name, service]))
  const named = new Map(Object.entries(config.limits).map(([name, limit]) => [name, compileLimit(name, limit)]))

  const names = routeNames(config.routes)
  const routes = config.routes.map((route, index): Route => {
    const name = names[index] as string
    const auth = route.auth.filter((kind) => kind !== 'none')
    const strips = route.stripCredentials !== false
    const keyParameter = config.apiKeys.query ?? null
    const match = compileMatch(route)
    const cuts = (route.stripPrefix || route.rewrite !== undefined) && match.path.segments.length > 0
    return {
      name,
      index,
      slot: slots?.routes[index] ?? index,
      match,
      service: servicesByName.get(route.service) as Service,
      auth,
      challenge: challengeFields(auth),
      signBody: auth.includes('x-m') && route.signBody !== false,
      httpSignature: auth.includes('http-signature') ? compileHttpSignature(config, route) : null,
      replayOnce: (route.replay ?? config.replay) === 'once' && auth.some((kind) => CREDENTIALS[kind].signs),
      maxSkewSeconds: route.maxSkew === undefined ? DEFAULT_MAX_SKEW_SECONDS : Math.round(route.maxSkew / 1000),
      allow: route.allow === undefined ? null : new Set(route.allow.filter((entry) => !entry.startsWith(GROUP))),
      allowGroups: (route.allow ?? [])
        .filter((entry) => entry.startsWith(GROUP))
        .map((entry) => entry.slice(GROUP.length)),
      addresses: compileAddresses(route.addresses),
      strippedFields: strips ? credentialFields(auth, config.apiKeys.header) : [],
      strippedParameter: strips && auth.includes('api-key') ? keyParameter : null,
      hiddenParameter: keyParameter,
      limits: route.limits.map((limit, position) =>
        typeof limit === 'string'
          ? (named.get(limit) as LimitPolicy)
          : compileLimit(limit.name ?? `${name}#${position}`, limit),
      ),
      trustRid: route.trustRid,
      preserveHost: route.preserveHost,
      stripPrefix: cuts ? match.path.text : route.rewrite === undefined ? null : '',
      // An exact path has nothing after it, so there the slash stays.
      rewrite: route.rewrite === undefined ? null : route.rewrite.replace(match.path.exact ? '' : /\/+$/, ''),
      fallback: compileFallback(route.fallback, servicesByName),
      maxBodyBytes: route.maxBody ?? settings.maxBodyBytes,
      logQuery: route.logQuery,
      accessLog: route.accessLog,
    }
  })
  return {
    tls: config.tls ?? null,
    routes,
    services,
    endpoints,
    consumers,
    consumersByName,
    trustedProxies: config.trustedProxies.map(addressRange),
    underscoresInHeaders: config.underscoresInHeaders,
    paths: config.paths,
    apiKeyHeader: config.apiKeys.header,
    apiKeyParameter: config.apiKeys.query ?? null,
    issuers: Object.entries(config.jwt).map(([name, issuer]) => compileIssuer(name, issuer, config, consumersByName)),
  }
}

function compileAddresses(addresses: RouteConfig['addresses']): Route['addresses'] {
  if (addresses === undefined) return null
  return { allow: addresses.allow?.map(addressRange) ?? null, deny: addresses.deny?.map(addressRange) ?? [] }
}

function credentialFields(kinds: readonly CredentialKind[], apiKeyHeader: string): readonly string[] {
  const fields = kinds.flatMap((kind) => CREDENTIALS[kind].fields as readonly string[])
  return [...new Set(kinds.includes('api-key') ? [...fields, apiKeyHeader] : fields)]
}

function compileIssuer(
  name: string,
  { jwks, leeway, groupsClaim, unlisted, secrets, ...issuer }: Config['jwt'][string],
  config: Config,
  consumersByName: ReadonlyMap<string, Consumer>,
): Issuer {
  const claims = Object.entries(config.consumers).flatMap(([consumer, { jwt }]) => {
    const claim = Object.hasOwn(jwt, name) ? jwt[name] : undefined
    return claim === undefined ? [] : [[claim, consumersByName.get(consumer) as Consumer] as const]
  })
  return {
    name,
    issuer: issuer.issuer,
    audience: issuer.audience,
    algorithms: issuer.algorithms,
    secrets: secrets ?? [],
    keys: issuer.keys,
    jwks: jwks === undefined ? null : { url: jwks.url, maxAgeMs: jwks.maxAge, cooldownMs: jwks.cooldown },
    leewaySeconds: Math.round(leeway / 1000),
    consumerClaim: issuer.consumerClaim,
    groupsClaim: groupsClaim ?? null,
    groups: issuer.groups,
    admitsUnlisted: unlisted === 'admit',
    consumers: new Map(claims),
  }
}

function compileFallback(fallback: RouteConfig['fallback'], services: ReadonlyMap<string, Service>): Fallback | null {
  if (fallback === undefined) return null
  if (fallback.service !== undefined) return { service: services.get(fallback.service) as Service }
  return {
    service: null,
    status: fallback.status ?? 200,
    headers: Object.entries(fallback.headers ?? {}).flat(),
    body: Buffer.from(fallback.bodyBase64, 'base64'),
  }
}

function compileService(
  name: string,
  index: number,
  { timeouts, tls, breaker, health, client, pipelining }: Config['services'][string],
  endpoints: readonly Endpoint[],
): Service {
  return {
    name,
    index,
    endpoints,
    connectTimeoutMs: timeouts.connect,
    firstByteTimeoutMs: orInfinity(timeouts.firstByte),
    idleTimeoutMs: orInfinity(timeouts.idle),
    totalTimeoutMs: orInfinity(timeouts.total),
    client,
    pipelining,
    tls: { ca: tls?.ca, cert: tls?.cert, key: tls?.key, serverName: tls?.serverName, verify: tls?.verify ?? true },
    breaker:
      breaker === undefined
        ? null
        : {
            windowMs: breaker.window,
            minRequests: breaker.minRequests,
            failureRatio: breaker.failureRatio,
            slowCallMs: orInfinity(breaker.slowCall),
            slowRatio: breaker.slowRatio,
            openForMs: breaker.openFor,
            maxOpenForMs: breaker.maxOpenFor,
            probes: breaker.probes,
            rampMs: breaker.ramp,
            failureStatuses: new Set(breaker.failureStatuses),
          },
    health:
      health === undefined
        ? null
        : {
            path: health.path,
            intervalMs: health.interval,
            timeoutMs: health.timeout,
            healthyAfter: health.healthyAfter,
            unhealthyAfter: health.unhealthyAfter,
          },
  }
}

/** JSON, in which a worker gets its config, has no Infinity. */
function orInfinity(ms: number): number {
  return ms === NO_TIMEOUT ? Number.POSITIVE_INFINITY : ms
}

function compileMatch(route: RouteConfig): RouteMatch {
  const { host, methods, headers } = route.match
  return {
    hosts: (host ?? []).map(canonicalHost),
    path: patternOf(route),
    methods: methods === undefined ? null : new Set(methods),
    headers: Object.entries(headers ?? {}),
    priority: route.priority,
  }
}

function compileLimit(name: string, limit: LimitConfig): LimitPolicy {
  const { quantity, windowSeconds } = limit.rate
  return {
    name,
    by: limit.by.map((key): LimitKey => {
      const header = /^header:(.+)$/.exec(key)?.[1]
      return header === undefined ? { kind: key as 'consumer' | 'address' | 'route' } : { kind: 'header', header }
    }),
    quantity,
    windowSeconds,
    burst: limit.burst ?? quantity,
    cost: typeof limit.cost === 'number' ? limit.cost : 1,
    costByMethod: typeof limit.cost === 'number' ? null : new Map(Object.entries(limit.cost)),
    mode: limit.mode,
    onFull: limit.onFull,
    headers: limit.headers,
  }
}

/** Host and path, `~2` and so on where that is taken. Given names come first, so that a route without one never takes another's. */
export function routeNames(routes: readonly RouteConfig[]): string[] {
  const taken = new Set(routes.map((route) => route.name))
  return routes.map((route) => {
    if (route.name !== undefined) return route.name
    const { exact, text } = patternOf(route)
    const base = `${(route.match.host ?? []).map(canonicalHost).join(',')}${exact ? '=' : ''}${text}`
    let name = base
    for (let n = 2; taken.has(name); n++) name = `${base}~${n}`
    taken.add(name)
    return name
  })
}

function addressRange(text: string): AddressRange {
  if (text.includes('/')) return ipaddr.parseCIDR(text)
  const address = ipaddr.process(text)
  return [address, address.kind() === 'ipv4' ? 32 : 128]
}
