// Does the route let this consumer in? Runs per request.
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'

const notAllowed = new Rejection('forbidden', 'consumer not allowed on this route')

export function authorize(exchange: Exchange): Rejection | null {
  const { allow, allowGroups } = exchange.route!
  if (allow === null) return null
  const consumer = exchange.consumer
  if (consumer === null) return notAllowed
  if (allow.has(consumer.name)) return null
  for (let i = 0; i < allowGroups.length; i++) if (consumer.groups.includes(allowGroups[i] as string)) return null
  return notAllowed
}
