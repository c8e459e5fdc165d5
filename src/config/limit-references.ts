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
  const { rate, burst, quota, timezone, tiers } = limit
  if (rate === undefined && quota === undefined) add([], 'needs rate (100/s) or quota (100000/day)')
  if (rate !== undefined && quota !== undefined) add(['quota'], 'cannot stand next to rate: write two limits')
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
  if (problems.length > 0) return problems

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
function tierProblem({ burst, quota }: LimitConfig, tier: MeasureConfig): string | null {
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
