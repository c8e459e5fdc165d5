// Config → RouteTable: everything that depends on the route alone is computed here, once, at start. Runs in the primary
// (to refuse a bad config) and in every worker (to use it). Imports no other phase.
import ipaddr from 'ipaddr.js'
import { compileBalance } from './balance.js'
import { branchesOf } from './branches.js'
import { compileBulkhead } from './bulkhead.js'
import { CREDENTIALS, type CredentialKind, challengeFields, GROUP } from './credentials.js'
import { type EndpointConfig, endpointAddress, endpointOptions } from './endpoint.js'
import { compileHandler } from './handlers.js'
import { compileHealth } from './health.js'
import { compileHedge } from './hedge.js'
import { compileHttpSignature } from './http-signature.js'
import { compileMirror, MIRROR_FIELD } from './mirror.js'
import { compileOutliers } from './outliers.js'
import { bytesOf, canonicalHost, patternOf } from './patterns.js'
import { NO_TIMEOUT, type Rate } from './quantities.js'
import { compileRetries } from './retries.js'
import type {
  AddressRange,
  Consumer,
  Endpoint,
  Issuer,
  LimitKey,
  LimitMeasure,
  LimitPolicy,
  LimitTier,
  Route,
  RouteMatch,
  RouteTable,
  Service,
  TableSlots,
} from './route-table.js'
import type { MeasureConfig } from './schema/limits.js'
import type { Config, LimitConfig, RouteConfig } from './schema.js'
import type { Settings } from './settings.js'
import { compileShedding, IMPORTANCES } from './shedding.js'

export type * from './route-table.js'

const DEFAULT_MAX_SKEW_SECONDS = 300
/**
 * As far as an RFC 9421 signature may be dated ahead by default: each second of it is one more in which a signature is
 * remembered.
 */
const MAX_LEAD_ONCE_SECONDS = 30

/**
 * The same for the same input, in every process. Takes a config that load.ts let through: it has nothing left to
 * refuse.
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
    const own = service.endpoints.map((entry, position) => {
      const index = endpoints.length + position
      return endpointOf(entry, service.tls?.serverName, slots?.endpoints[index] ?? index)
    })
    endpoints.push(...own)
    return compileService(name, index, slots?.services[index] ?? index, service, own)
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
    const limits = route.limits.map((limit, position) =>
      typeof limit === 'string'
        ? (named.get(limit) as LimitPolicy)
        : compileLimit(limit.name ?? `${name}#${position}`, limit),
    )
    const replayOnce = (route.replay ?? config.replay) === 'once' && auth.some((kind) => CREDENTIALS[kind].signs)
    const maxSkewSeconds = route.maxSkew === undefined ? DEFAULT_MAX_SKEW_SECONDS : Math.round(route.maxSkew / 1000)
    const cuts = (route.stripPrefix || route.rewrite !== undefined) && match.path.segments.length > 0
    return {
      name,
      index,
      slot: slots?.routes[index] ?? index,
      match,
      importance: IMPORTANCES.indexOf(route.importance),
      handler: compileHandler(route, 'route', servicesByName),
      mirror: compileMirror(route.mirror, servicesByName),
      auth,
      challenge: challengeFields(auth),
      signBody: auth.includes('x-m') && route.signBody !== false,
      httpSignature: auth.includes('http-signature')
        ? compileHttpSignature({ ...config.httpSignature, ...route.httpSignature }, route.signBody !== false)
        : null,
      replayOnce,
      maxSkewSeconds,
      maxLeadSeconds: replayOnce ? Math.min(maxSkewSeconds, MAX_LEAD_ONCE_SECONDS) : maxSkewSeconds,
      allow: route.allow === undefined ? null : new Set(route.allow.filter((entry) => !entry.startsWith(GROUP))),
      allowGroups: (route.allow ?? [])
        .filter((entry) => entry.startsWith(GROUP))
        .map((entry) => entry.slice(GROUP.length)),
      addresses: compileAddresses(route.addresses),
      strippedFields: [
        ...(strips ? credentialFields(auth, config.apiKeys.header) : []),
        // Nobody but the gateway may mark a request as a copy.
        ...(route.mirror === undefined ? [] : [MIRROR_FIELD]),
      ],
      strippedParameter: strips && auth.includes('api-key') ? keyParameter : null,
      hiddenParameter: keyParameter,
      limits: limits.filter(({ on, measure }) => on === 'request' && measure.kind !== 'inFlight'),
      inFlightLimits: limits.filter(({ measure }) => measure.kind === 'inFlight'),
      guessLimits: limits.filter(({ on }) => on === 'failedAuth'),
      trustRid: route.trustRid,
      preserveHost: route.preserveHost,
      stripPrefix: cuts ? match.path.text : route.rewrite === undefined ? null : '',
      // An exact path has nothing after it, but for a slash that is ignored, so there the slash stays.
      rewrite:
        route.rewrite === undefined
          ? null
          : route.rewrite.replace(match.path.exact && !match.slashIgnored ? '' : /\/+$/, ''),
      hedge: compileHedge(route.hedge),
      fallback: route.fallback === undefined ? null : compileHandler(route.fallback, 'fallback', servicesByName),
      maxBodyBytes: route.maxBody ?? settings.maxBodyBytes,
      logQuery: route.logQuery,
      accessLog: route.accessLog,
    }
  })
  return {
    tls: config.tls ?? null,
    shedding: compileShedding(config.shedding),
    routes,
    services,
    endpoints,
    branches: branchesOf(routes, slots?.branches),
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

/**
 * Of an endpoint as it is written. `serverName` is what the service's `tls` says, `slot` its place in the endpoint
 * table.
 */
export function endpointOf(entry: EndpointConfig, serverName: string | undefined, slot: number): Endpoint {
  const { url, weight, zone } = endpointOptions(entry)
  const { origin, authority, hostname, socketPath } = endpointAddress(url)
  return { origin, authority, serverName: serverName ?? hostname, socketPath, weight, zone, slot }
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

function compileService(
  name: string,
  index: number,
  slot: number,
  service: Config['services'][string],
  endpoints: readonly Endpoint[],
): Service {
  const { timeouts, tls, balance, slowStart, breaker, health, outliers, client, pipelining, retries } = service
  return {
    name,
    index,
    slot,
    endpoints,
    connectTimeoutMs: timeouts.connect,
    firstByteTimeoutMs: orInfinity(timeouts.firstByte),
    idleTimeoutMs: orInfinity(timeouts.idle),
    totalTimeoutMs: orInfinity(timeouts.total),
    client,
    pipelining,
    retries: compileRetries(retries),
    tls: { ca: tls?.ca, cert: tls?.cert, key: tls?.key, serverName: tls?.serverName, verify: tls?.verify ?? true },
    balance: compileBalance(balance),
    slowStartMs: slowStart,
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
    health: compileHealth(health),
    outliers: compileOutliers(outliers),
    bulkhead: compileBulkhead(service),
  }
}

/** JSON, in which a worker gets its config, has no Infinity. */
function orInfinity(ms: number): number {
  return ms === NO_TIMEOUT ? Number.POSITIVE_INFINITY : ms
}

function compileMatch(route: RouteConfig): RouteMatch {
  const { host, methods, headers, caseInsensitive = false, trailingSlash } = route.match
  return {
    hosts: (host ?? []).map(canonicalHost),
    path: patternOf(route),
    caseInsensitive,
    slashIgnored: trailingSlash === 'ignore',
    methods: methods === undefined ? null : new Set(methods),
    headers: Object.entries(headers ?? {}).map(([name, value]) => [name, bytesOf(value)] as const),
    priority: route.priority,
  }
}

function compileLimit(name: string, limit: LimitConfig): LimitPolicy {
  const policy: LimitPolicy = {
    name,
    by: limit.by.map((key): LimitKey => {
      const header = /^header:(.+)$/.exec(key)?.[1]
      if (header !== undefined) return { kind: 'header', header }
      // Who calls is not known yet.
      if (key === 'consumer' && limit.on === 'failedAuth') return { kind: 'claimed' }
      return { kind: key as 'consumer' | 'address' | 'route' }
    }),
    measure: measureOf(limit),
    tiers: [],
    cost: typeof limit.cost === 'number' ? limit.cost : 1,
    costByMethod: typeof limit.cost === 'number' ? null : new Map(Object.entries(limit.cost)),
    on: limit.on,
    mode: limit.mode,
    onFull: limit.onFull,
    headers: limit.headers,
  }
  const tiers = Object.entries(limit.tiers).map(([who, tier]): LimitTier => {
    const group = who.startsWith(GROUP) ? who.slice(GROUP.length) : null
    const { timezone } = limit
    const measure = measureOf(
      limit.quota === undefined ? { ...tier, quota: undefined } : { quota: tier.quota, timezone },
    )
    return { consumer: group === null ? who : null, group, policy: { ...policy, measure } }
  })
  return { ...policy, tiers }
}

/** load.ts has seen to it that there is one of them. */
function measureOf({ rate, burst, quota, timezone, inFlight }: MeasureConfig): LimitMeasure {
  if (inFlight !== undefined) return { kind: 'inFlight', quantity: inFlight }
  if (quota !== undefined) return { kind: 'quota', ...quota, timezone: timezone ?? 'UTC' }
  const { quantity, windowSeconds } = rate as Rate
  return burst === undefined
    ? { kind: 'window', quantity, windowSeconds }
    : { kind: 'bucket', quantity, windowSeconds, burst }
}

/**
 * Host and path, `~2` and so on where that is taken. Given names come first, so that a route without one never takes
 * another's.
 */
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
