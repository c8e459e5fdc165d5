// What a simulation has to say, as plain data: `--json` prints it as it is, and cli/simulate/text.ts for people. Pairs
// are of the left side, which is the log or the old configuration, and the right one. Pure.
import { CLASSES, type Comparison, type Pair, Refusals, type StatusClass, shownRoute } from './comparison.js'
import type { LogSummary } from './replay.js'
import type { Opening, ServiceReplay } from './service-replay.js'
import type { Simulation } from './simulation.js'
import type { TopCounts } from './top-counts.js'

/** Consumers, or addresses of callers without one, that are named in each place. */
const MOST_NAMED = 5
const MOST_CHANGES = 100

export interface Who {
  readonly name: string
  readonly requests: Pair
}

export interface RouteReport {
  readonly route: string
  readonly requests: Pair
  readonly statuses: Partial<Record<StatusClass, Pair>>
  /** Requests that a limit with `mode: report` would have refused. */
  readonly limitReported: Pair
  /** Requests that each service got. */
  readonly services: Readonly<Record<string, Pair>>
}

export interface RefusalReport {
  readonly refused: Pair
  readonly first: readonly [string | null, string | null]
  readonly last: readonly [string | null, string | null]
  readonly who: readonly Who[]
  readonly names: Pair
}

export interface OpeningReport {
  readonly at: string
  readonly reason: string
  readonly closedAt: string | null
  readonly seconds: number | null
  readonly refused: number
}

export interface BreakerReport extends RefusalReport {
  readonly service: string
  /** Null: the log does not say. Of many openings, the first ones. */
  readonly openings: readonly [readonly OpeningReport[] | null, readonly OpeningReport[]]
  readonly opened: readonly [number | null, number]
}

export interface ChangeReport {
  readonly from: string
  readonly to: string
  readonly requests: number
  readonly who: readonly { readonly name: string; readonly requests: number }[]
}

export interface Report {
  /** `log`, or the old configuration; and the configuration. */
  readonly sides: readonly [string, string]
  readonly log: Omit<LogSummary, 'fromUs' | 'toUs'> & { readonly from: string | null; readonly to: string | null }
  /** Requests that end differently, or that another route takes. */
  readonly changed: number
  /** Other requests that go to another service. */
  readonly elsewhere: number
  readonly changes: readonly ChangeReport[]
  readonly moved: readonly { readonly routes: string; readonly requests: number }[]
  readonly routes: readonly RouteReport[]
  readonly limits: readonly ({ readonly limit: string } & RefusalReport)[]
  readonly breakers: readonly BreakerReport[]
  readonly retries: readonly { readonly service: string; readonly made: Pair; readonly refusedByBudget: Pair }[]
  /** What the log does not tell, and how often something was assumed in its place. */
  readonly assumptions: readonly { readonly what: string; readonly requests: number }[]
  readonly notJudged: readonly string[]
}

/** @param left null: the log is the left side */
export function reportOf(
  summary: LogSummary,
  comparison: Comparison,
  left: Simulation | null,
  right: Simulation,
): Report {
  const { fromUs, toUs, ...log } = summary
  return {
    sides: [left === null ? 'log' : left.loaded.origin, right.loaded.origin],
    log: { ...log, from: isoOf(fromUs), to: isoOf(toUs) },
    changed: comparison.changed,
    elsewhere: comparison.elsewhere,
    changes: changesOf(comparison),
    moved: comparison.moved.top(MOST_CHANGES).map(({ name, count }) => ({ routes: name, requests: count })),
    routes: routesOf(comparison),
    limits: [...comparison.limits]
      .map(([limit, refusals]) => ({ limit, ...refusalsOf(refusals) }))
      .sort((a, b) => most(b.refused) - most(a.refused)),
    breakers: breakersOf(comparison, left, right),
    retries: [...comparison.retries].map(([service, { made, refused }]) => ({
      service,
      made,
      refusedByBudget: refused,
    })),
    assumptions: assumptionsOf(right),
    notJudged: [...new Set([...(left?.blindSpots ?? []), ...right.blindSpots])],
  }
}

function changesOf({ changes }: Comparison): ChangeReport[] {
  return [...changes.values()]
    .sort((a, b) => b.who.total - a.who.total)
    .slice(0, MOST_CHANGES)
    .map(({ left, right, who }) => ({
      from: left,
      to: right,
      requests: who.total,
      who: who.top(MOST_NAMED).map(({ name, count }) => ({ name, requests: count })),
    }))
}

function routesOf({ routes }: Comparison): RouteReport[] {
  return [...routes]
    .map(([name, { requests, classes, limitReported, forwarded }]) => {
      const services = new Set(forwarded.flatMap((side) => side.top(100).map(({ name }) => name)))
      return {
        route: shownRoute(name),
        requests,
        statuses: Object.fromEntries(
          CLASSES.flatMap((text, at) => (most(classes[at] as Pair) > 0 ? [[text, classes[at] as Pair]] : [])),
        ),
        limitReported,
        services: Object.fromEntries(
          [...services].map((service): [string, Pair] => [
            service,
            [forwarded[0].of(service), forwarded[1].of(service)],
          ]),
        ),
      }
    })
    .sort((a, b) => most(b.requests) - most(a.requests) || (a.route < b.route ? -1 : 1))
}

function refusalsOf({ who, firstUs, lastUs }: Refusals): RefusalReport {
  return {
    refused: [who[0].total, who[1].total],
    first: [isoOf(firstUs[0]), isoOf(firstUs[1])],
    last: [isoOf(lastUs[0]), isoOf(lastUs[1])],
    who: whoOf(who),
    names: [who[0].names, who[1].names],
  }
}

function whoOf([left, right]: readonly [TopCounts, TopCounts]): Who[] {
  const names = new Set([...right.top(MOST_NAMED), ...left.top(MOST_NAMED)].map(({ name }) => name))
  return [...names]
    .map((name): Who => ({ name, requests: [left.of(name), right.of(name)] }))
    .sort((a, b) => most(b.requests) - most(a.requests))
    .slice(0, MOST_NAMED)
}

function breakersOf(comparison: Comparison, left: Simulation | null, right: Simulation): BreakerReport[] {
  const opened = (simulation: Simulation | null): Map<string, ServiceReplay> =>
    new Map((simulation?.services ?? []).filter((one) => one.openingsTotal > 0).map((one) => [one.service.name, one]))
  const before = opened(left)
  const after = opened(right)
  const names = new Set([...comparison.breakers.keys(), ...before.keys(), ...after.keys()])
  return [...names].map((service) => {
    const old = before.get(service)
    const now = after.get(service)
    return {
      service,
      ...refusalsOf(comparison.breakers.get(service) ?? new Refusals()),
      opened: [left === null ? null : (old?.openingsTotal ?? 0), now?.openingsTotal ?? 0],
      openings: [left === null ? null : openingsOf(old), openingsOf(now)],
    }
  })
}

function openingsOf(replay: ServiceReplay | undefined): OpeningReport[] {
  return (replay?.openings ?? []).map(({ atUs, closedUs, reason, refused }: Opening) => ({
    at: isoOf(atUs) as string,
    reason,
    closedAt: closedUs === null ? null : isoOf(closedUs),
    seconds: closedUs === null ? null : Math.round((closedUs - atUs) / 1e5) / 10,
    refused,
  }))
}

function assumptionsOf({ assumptions }: Simulation): { what: string; requests: number }[] {
  return [
    {
      what: 'forwarded that no service had then: what it would have answered is not known',
      requests: assumptions.unanswered,
    },
    {
      what: 'matching several routes, by host or headers, which the log does not have: took the route that the log names',
      requests: assumptions.routeOfLog,
    },
    {
      what: 'matching several routes, of which the log names none: left as logged',
      requests: assumptions.routeOpen,
    },
    {
      what: 'without credentials, on a route that asks for them: left as logged',
      requests: assumptions.noCredentials,
    },
  ].filter(({ requests }) => requests > 0)
}

function most([left, right]: Pair): number {
  return Math.max(left, right)
}

function isoOf(us: number): string | null {
  return us === 0 ? null : new Date(Math.floor(us / 1000)).toISOString()
}
