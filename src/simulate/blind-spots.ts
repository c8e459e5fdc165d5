// What a log cannot tell of a configuration: limits whose keys are not in it, routes that leave no lines, callers whose
// groups are unknown. A simulation leaves these out, and says so. Pure.
import type { LimitPolicy, Route, RouteTable, SplitRules } from '../config/compile.js'

/** What of the route's limits can be judged. Null key: all of it. */
export function judgeable({ by, on, measure }: LimitPolicy): boolean {
  return on === 'request' && measure.kind !== 'inFlight' && by.every(({ kind }) => kind !== 'header')
}

/** The same route with the limits that can be judged. */
export function judgedRoute(route: Route): Route {
  return { ...route, limits: route.limits.filter(judgeable), inFlightLimits: [], guessLimits: [] }
}

function limitsOf({ limits, inFlightLimits, guessLimits }: Route): readonly LimitPolicy[] {
  return [...limits, ...inFlightLimits, ...guessLimits]
}

/** Names of the limits that cannot be judged. */
export function blindLimits(routes: readonly Route[]): Set<string> {
  return new Set(
    routes
      .flatMap(limitsOf)
      .filter((limit) => !judgeable(limit))
      .map(({ name }) => name),
  )
}

/** One sentence for each thing that the log says nothing of. */
export function blindSpots({ routes, issuers, services }: RouteTable): string[] {
  const spots: string[] = []
  const blind = new Map<string, LimitPolicy>()
  for (const route of routes) {
    for (const limit of limitsOf(route)) if (!judgeable(limit)) blind.set(limit.name, limit)
  }
  for (const { name, by, on, measure } of blind.values()) {
    const header = by.find((key) => key.kind === 'header')
    const why =
      on === 'failedAuth'
        ? 'it counts wrong credentials, which the log does not tell from missing ones'
        : measure.kind === 'inFlight'
          ? 'how many requests are in flight is not replayed'
          : `it counts by the header ${header?.kind === 'header' ? header.header : ''}, and the log has no headers`
    spots.push(`limit ${name}: ${why}. What it refused in the log stays refused.`)
  }
  const silent = routes.filter((route) => !route.accessLog).map(({ name }) => name)
  if (silent.length > 0)
    spots.push(
      `${named('route', silent)} with accessLog: false: the log has no requests of theirs, and limits that they share count too little.`,
    )
  for (const { name, handler, mirror } of routes) {
    const sticky = handler.kind === 'split' ? (handler as SplitRules).sticky : null
    if (sticky?.kind === 'header' || sticky?.kind === 'cookie')
      spots.push(
        `route ${name}: its split is sticky by a ${sticky.kind}, which the log does not have. Requests are drawn one by one.`,
      )
    if (mirror !== null) spots.push(`route ${name}: copies for its mirror are not simulated.`)
  }
  const bounded = services.filter(({ bulkhead }) => bulkhead !== null).map(({ name }) => name)
  if (bounded.length > 0)
    spots.push(
      `${named('service', bounded)}: how many requests are in flight is not replayed. What found no room in the log finds none now.`,
    )
  if (issuers.some(({ groupsClaim }) => groupsClaim !== null) && routes.some(usesGroups))
    spots.push(
      'groups that a token names: the log does not have them. A consumer has the groups of the configuration alone.',
    )
  return spots
}

function usesGroups({ allowGroups, limits }: Route): boolean {
  return allowGroups.length > 0 || limits.some(({ tiers }) => tiers.some(({ group }) => group !== null))
}

function named(what: string, names: readonly string[]): string {
  const shown = names.slice(0, 5).join(', ')
  return `${what}${names.length === 1 ? '' : 's'} ${shown}${names.length > 5 ? ` and ${names.length - 5} more` : ''}`
}
