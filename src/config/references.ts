// Checks the references between entries of the configuration: services, consumers and limits that routes name, routes
// that cannot be told apart, and options without effect. Pure; each problem carries the path of its key.
import { consumerProblems, credentialProblems, groupProblems } from './caller-references.js'
import { CREDENTIAL_KINDS, CREDENTIALS, GROUP } from './credentials.js'
import { endpointAddress, endpointOptions } from './endpoint.js'
import { servicesNamedIn } from './handlers.js'
import { limitProblems } from './limit-references.js'
import { mirrorEntry } from './mirror.js'
import { hint } from './nearest.js'
import { canonicalHost, isParameter, patternOf } from './patterns.js'
import type { CheckedEntries, DefinedNames, Problem } from './problems.js'
import { UNLIMITED_BYTES } from './quantities.js'
import type { Config, RouteConfig } from './schema.js'

/** What a route names. Routes that the schema refused are included, so that every problem is reported at once. */
export function danglingNames(routes: readonly unknown[], names: DefinedNames): Problem[] {
  const problems: Problem[] = []
  const check = (path: readonly PropertyKey[], name: unknown, kind: string, known: readonly string[]): void => {
    if (typeof name !== 'string' || known.includes(name)) return
    problems.push({ path, message: `no ${kind} is named "${name}"${hint(name, known)}` })
  }
  routes.forEach((route, index) => {
    const { allow, limits, fallback, mirror } = Object(route) as Record<string, unknown>
    for (const { path, service } of [...servicesNamedIn(route), mirrorEntry(mirror)])
      check(['routes', index, ...path], service, 'service', names.services)
    for (const { path, service } of servicesNamedIn(fallback))
      check(['routes', index, 'fallback', ...path], service, 'service', names.services)
    for (const [at, name] of Array.isArray(allow) ? allow.entries() : []) {
      if (!String(name).startsWith(GROUP)) check(['routes', index, 'allow', at], name, 'consumer', names.consumers)
    }
    for (const [at, limit] of Array.isArray(limits) ? limits.entries() : []) {
      check(['routes', index, 'limits', at], limit, 'limit', names.limits)
    }
  })
  return problems
}

/** Most bytes of a body that the gateway reads whole before it forwards the request. */
const MAX_SIGNED_BODY_BYTES = 2 ** 30

export function referenceProblems(config: CheckedEntries, names: DefinedNames): Problem[] {
  const problems: Problem[] = []
  for (const [name, service] of Object.entries(config.services)) {
    const seen = new Set<string>()
    service.endpoints.forEach((endpoint, index) => {
      const { origin } = endpointAddress(endpointOptions(endpoint).url)
      if (seen.has(origin))
        problems.push({ path: ['services', name, 'endpoints', index], message: `"${origin}" is listed twice` })
      seen.add(origin)
    })
    problems.push(...tlsProblems(service, ['services', name, 'tls']))
  }
  problems.push(...consumerProblems(config, names))
  for (const [name, limit] of Object.entries(config.limits))
    problems.push(...limitProblems(limit, ['limits', name], config, names))
  config.routes.forEach((route, index) => {
    if (route !== undefined) problems.push(...routeProblems(route, ['routes', index], config, names))
  })
  problems.push(...duplicateNames(config.routes, names.limits), ...ambiguousRoutes(config.routes))
  return problems
}

const SIGNING: readonly string[] = CREDENTIAL_KINDS.filter((kind) => CREDENTIALS[kind].signs)
/** Options of a route, and the credential kinds to which each applies. */
const ONLY_WITH: readonly (readonly ['signBody' | 'maxSkew' | 'httpSignature' | 'replay', readonly string[]])[] = [
  ['signBody', SIGNING],
  ['replay', SIGNING],
  ['maxSkew', ['x-m']],
  ['httpSignature', ['http-signature']],
]

/** Options that apply to consumers known by certificate. */
export function certificateProblems({ consumers, routes, tls }: Config): Problem[] {
  const problems: Problem[] = []
  const asks = tls !== undefined && tls.clientAuth !== 'none'
  routes.forEach((route, index) => {
    if (!asks && route.auth.includes('client-certificate'))
      problems.push({
        path: ['routes', index, 'auth'],
        message: 'client-certificate needs tls.clientAuth: request or require',
      })
  })
  const owners = new Map<string, string>()
  for (const [name, consumer] of Object.entries(consumers)) {
    for (const [at, text] of consumer.certificate.entries()) {
      const owner = owners.get(text)
      if (owner !== undefined) {
        problems.push({
          path: ['consumers', name, 'certificate', at],
          message: `is already what "${owner}" is known by`,
        })
      }
      owners.set(text, name)
    }
  }
  return problems
}

function tlsProblems({ tls, endpoints }: Config['services'][string], at: readonly PropertyKey[]): Problem[] {
  if (tls === undefined) return []
  const problems: Problem[] = []
  const add = (key: string[], message: string) => problems.push({ path: [...at, ...key], message })
  if (!endpoints.some((entry) => /^https:/i.test(endpointOptions(entry).url)))
    add([], 'has no effect: no endpoint is https')
  if (tls.cert !== undefined && tls.key === undefined) add(['cert'], 'needs key, the private key that belongs to it')
  if (tls.key !== undefined && tls.cert === undefined) add(['key'], 'needs cert, the certificate it belongs to')
  if (tls.passphrase !== undefined && tls.key === undefined) add(['passphrase'], 'has no effect without key')
  if (!tls.verify && tls.ca !== undefined) add(['ca'], 'has no effect with verify: false')
  return problems
}

function routeProblems(
  route: RouteConfig,
  at: readonly PropertyKey[],
  config: CheckedEntries,
  names: DefinedNames,
): Problem[] {
  const problems: Problem[] = []
  const add = (path: readonly PropertyKey[], message: string) => problems.push({ path: [...at, ...path], message })

  const open = route.auth.includes('none')
  if (open && route.auth.length > 1) add(['auth'], 'none lets everyone in: it stands alone')
  if (new Set(route.auth).size < route.auth.length) add(['auth'], 'names one kind twice')
  problems.push(...credentialProblems(route, [...at, 'auth'], config, names))
  problems.push(...groupProblems(route, [...at, 'allow'], config))
  if (open) {
    for (const key of ['allow', 'signBody', 'maxSkew', 'httpSignature', 'replay', 'stripCredentials'] as const) {
      if (route[key] !== undefined) add([key], 'has no effect with auth: none, where callers are not identified')
    }
  } else {
    for (const [key, kinds] of ONLY_WITH) {
      if (route[key] === undefined || route.auth.some((kind) => kinds.includes(kind))) continue
      add([key], `has no effect without ${kinds.join(' or ')} in auth`)
    }
  }
  if (route.service !== undefined && route.fallback?.service === route.service)
    add(['fallback', 'service'], 'is the service it is to stand in for')
  problems.push(...splitProblems(route, at, open))
  const signed = route.auth.some((kind) => SIGNING.includes(kind)) && route.signBody !== false
  if (signed && route.maxBody !== undefined && route.maxBody > MAX_SIGNED_BODY_BYTES) {
    const given = route.maxBody === UNLIMITED_BYTES ? 'unlimited' : 'over 1GiB'
    add(['maxBody'], `cannot be ${given} where the signature covers the body, which is held in memory; see signBody`)
  }
  const pattern = patternOf(route)
  if (route.match.trailingSlash !== undefined && !pattern.exact)
    add(['match', 'trailingSlash'], 'has no effect without exactPath: path is a prefix, and covers both')
  if (route.stripPrefix && route.rewrite !== undefined)
    add(['rewrite'], 'cannot stand next to stripPrefix: "/" does the same')
  if (pattern.segments.some(isParameter)) {
    for (const key of ['stripPrefix', 'rewrite'] as const) {
      if (route[key]) add([key], `cannot be used with parameters in the path ("${pattern.text}")`)
    }
  }

  route.limits.forEach((entry, index) => {
    const inline = typeof entry !== 'string'
    const limit = inline ? entry : config.limits[entry]
    if (inline) problems.push(...limitProblems(entry, [...at, 'limits', index], config, names))
    if (limit?.on === 'failedAuth' && open) {
      add(['limits', index], 'counts failed credentials, and with auth: none there are none')
    } else if (limit?.by.includes('consumer') && open) {
      add(['limits', index], 'counts by consumer, and with auth: none callers are not identified')
    }
  })
  return problems
}

function splitProblems(route: RouteConfig, at: readonly PropertyKey[], isOpen: boolean): Problem[] {
  const { split, sticky, mirror } = route
  const problems: Problem[] = []
  const add = (key: string, message: string) => problems.push({ path: [...at, key], message })
  if (sticky !== undefined && split === undefined) add('sticky', 'has no effect without split')
  if (sticky === 'consumer' && isOpen) add('sticky', 'is by consumer, and with auth: none callers are not identified')
  const asked = servicesNamedIn(route).map(({ service }) => service)
  if (mirror !== undefined && asked.includes(mirror.service)) {
    add('mirror', `"${mirror.service}" gets the requests themselves; name another service`)
  }
  return problems
}

function duplicateNames(routes: readonly (RouteConfig | undefined)[], limitNames: readonly string[]): Problem[] {
  const problems: Problem[] = []
  const seenRoutes = new Map<string, number>()
  const seenLimits = new Set(limitNames)
  routes.forEach((route, index) => {
    if (route === undefined) return
    if (route.name !== undefined) {
      const first = seenRoutes.get(route.name)
      if (first === undefined) seenRoutes.set(route.name, index)
      else
        problems.push({
          path: ['routes', index, 'name'],
          message: `"${route.name}" is already the name of routes[${first}]`,
        })
    }
    route.limits.forEach((limit, position) => {
      if (typeof limit === 'string' || limit.name === undefined) return
      if (seenLimits.has(limit.name)) {
        problems.push({
          path: ['routes', index, 'limits', position, 'name'],
          message: `"${limit.name}" is already the name of a limit; to share it, put it under limits`,
        })
      }
      seenLimits.add(limit.name)
    })
  })
  return problems
}

/** Reports two routes that some request fits equally: the order of the file would decide. */
function ambiguousRoutes(routes: readonly (RouteConfig | undefined)[]): Problem[] {
  const problems: Problem[] = []
  const seen = new Map<string, { index: number; methods: readonly string[] | undefined }[]>()
  routes.forEach((route, index) => {
    if (route === undefined) return
    const { exact, segments } = patternOf(route)
    const { caseInsensitive = false, trailingSlash = 'strict' } = route.match
    const literal = (segment: string): string => (caseInsensitive ? segment.toLowerCase() : segment)
    const shape = segments.map((segment) => (isParameter(segment) ? ':' : literal(segment)))
    const headers = Object.entries(route.match.headers ?? {}).sort()
    for (const host of route.match.host ?? ['']) {
      const spelling = [shape, caseInsensitive, trailingSlash]
      const key = JSON.stringify([host && canonicalHost(host), exact, spelling, headers, route.priority])
      const same = seen.get(key) ?? []
      const methods = route.match.methods
      for (const other of same) {
        const shared = methods === undefined ? undefined : methods.filter((method) => other.methods?.includes(method))
        if (methods === undefined ? other.methods !== undefined : (shared as string[]).length === 0) continue
        const what =
          shared === undefined ? 'matches the same requests' : `matches the same ${shared.join(', ')} requests`
        problems.push({
          path: ['routes', index, 'match'],
          message: `${what} as routes[${other.index}]; give one a higher priority`,
        })
        break
      }
      same.push({ index, methods })
      seen.set(key, same)
    }
  })
  return problems
}
