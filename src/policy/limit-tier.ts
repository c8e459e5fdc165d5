// Which numbers of a limit apply to a consumer: those of its name, else those of the first of its groups, else the
// limit's own. Runs per request.
import type { Consumer, LimitPolicy } from '../config/compile.js'

const known = new WeakMap<LimitPolicy, WeakMap<Consumer, LimitPolicy>>()

export function tierOf(policy: LimitPolicy, consumer: Consumer | null): LimitPolicy {
  if (policy.tiers.length === 0 || consumer === null) return policy
  let byConsumer = known.get(policy)
  if (byConsumer === undefined) {
    byConsumer = new WeakMap()
    known.set(policy, byConsumer)
  }
  let tier = byConsumer.get(consumer)
  if (tier === undefined) {
    tier = policy.tiers[tierIndex(policy, consumer)]?.policy ?? policy
    byConsumer.set(consumer, tier)
  }
  return tier
}

/** Position among the tiers of the one that applies; -1: none does. */
export function tierIndex({ tiers }: LimitPolicy, { name, groups }: Consumer): number {
  const named = tiers.findIndex(({ consumer }) => consumer === name)
  return named >= 0 ? named : tiers.findIndex(({ group }) => group !== null && groups.includes(group))
}
