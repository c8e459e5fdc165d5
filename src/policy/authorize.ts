// Does the route let this consumer in? Runs per request on routes with a list of consumers or groups.
import type { Route } from '../config/compile.js'
import { Rejection } from '../exchange/outcome.js'
import type { Check } from '../exchange/phase.js'

const notAllowed = new Rejection('forbidden', 'consumer not allowed on this route')

export function consumerCheck({ allow, allowGroups }: Route): Check | null {
  if (allow === null) return null
  return ({ consumer }) => {
    if (consumer === null) return notAllowed
    if (allow.has(consumer.name)) return null
    for (let i = 0; i < allowGroups.length; i++) if (consumer.groups.includes(allowGroups[i] as string)) return null
    return notAllowed
  }
}
