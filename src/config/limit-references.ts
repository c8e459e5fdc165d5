// Checks the options of a limit against each other, and its tiers against consumers and groups. Pure; called by
// references.ts.
import { groupProblem } from './caller-references.js'
import { GROUP } from './credentials.js'
import { hint } from './nearest.js'
import type { CheckedEntries, DefinedNames, Problem } from './problems.js'
import type { MeasureConfig } from './schema/limits.js'
import type { LimitConfig } from './schema.js'

export function limitProblems(
  limit: LimitConfig,
  at: readonly PropertyKey[],
  config: CheckedEntries,
  names: DefinedNames,
): Problem[] {
  const problems: Problem[] = []
  const add = (path: readonly PropertyKey[], message: string) => problems.push({ path: [...at, ...path], message })
  const { rate, burst, quota, timezone, tiers, inFlight } = limit
  if (rate === undefined && quota === undefined && inFlight === undefined)
    add([], 'needs rate (100/s), quota (100000/day) or inFlight (10)')
  if (rate !== undefined && quota !== undefined) add(['quota'], 'cannot stand next to rate: write two limits')
  if (inFlight !== undefined && (rate ?? quota) !== undefined)
    add(['inFlight'], `cannot stand next to ${rate === undefined ? 'quota' : 'rate'}: write two limits`)
  if (inFlight !== undefined && limit.on === 'failedAuth')
    add(['on'], 'must be request with inFlight: wrong credentials are not in flight')
  if (inFlight !== undefined && limit.cost !== 1)
    add(['cost'], 'cannot be used with inFlight: each request counts once')
  if (burst !== undefined && rate === undefined) add(['burst'], 'has no effect without rate')
  if (timezone !== undefined && quota === undefined) add(['timezone'], 'has no effect without quota')
  if (problems.length > 0) return problems

  const who = Object.keys(tiers)
  if (who.length > 0 && limit.on === 'failedAuth')
    add(['tiers'], 'cannot be used with on: failedAuth: who calls is not known before credentials are checked')
  else if (who.length > 0 && !limit.by.includes('consumer'))
    add(['tiers'], 'needs consumer in by: tiers are for consumers')
  for (const [name, tier] of Object.entries(tiers)) {
    const problem = nameProblem(name, config, names) ?? tierProblem(limit, tier)
    if (problem !== null) add(['tiers', name], problem)
  }
  if (problems.length > 0 || inFlight !== undefined) return problems

  const costs = typeof limit.cost === 'number' ? [limit.cost] : Object.values(limit.cost)
  for (const [path, most] of [
    [['cost'], mostOf(limit)],
    ...Object.entries(tiers).map(([name, tier]) => [['tiers', name], mostOf(tier, quota !== undefined)]),
  ] as [string[], number][]) {
    if (costs.some((cost) => cost > most))
      add(
        path,
        path[0] === 'cost'
          ? `is more than the limit ever admits (${most}): nothing would pass`
          : `admits ${most} at most, and a request may cost more`,
      )
  }
  return problems
}

function nameProblem(name: string, config: CheckedEntries, names: DefinedNames): string | null {
  if (name.startsWith(GROUP)) return groupProblem(name.slice(GROUP.length), config)
  if (names.consumers.includes(name)) return null
  const isGroup = Object.values(config.consumers ?? {}).some(({ groups }) => groups.includes(name))
  return `no consumer is named "${name}"${isGroup ? `; for the group write '${GROUP}${name}'` : hint(name, names.consumers)}`
}

/** A tier must count the same way as its limit. */
function tierProblem({ burst, quota, inFlight }: LimitConfig, tier: MeasureConfig): string | null {
  if (inFlight !== undefined)
    return tier.inFlight === undefined ? 'must be a number of requests, as the limit is: 10' : null
  if (quota !== undefined) return tier.quota === undefined ? 'must be a quota, as the limit is: 100000/day' : null
  if (tier.rate === undefined) return 'must be a rate, as the limit is: 100/s'
  if (burst !== undefined && tier.burst === undefined)
    return 'must have a burst, as the limit has: { rate: 100/s, burst: 200 }'
  return burst === undefined && tier.burst !== undefined ? 'cannot have a burst where the limit has none' : null
}

/** How many requests pass at once after an idle period. */
function mostOf({ rate, burst, quota }: MeasureConfig, isQuota = quota !== undefined): number {
  return (isQuota ? quota?.quantity : (burst ?? rate?.quantity)) as number
}
