// Is this caller let in here? Runs per request.
import type { Exchange } from '../ingress/exchange.js'
import { Rejection } from '../outcome.js'

const notAllowed = new Rejection('forbidden', 'consumer not allowed on this route')

export function authorize(exchange: Exchange): Rejection | null {
  const allow = exchange.route!.allow
  if (allow === null) return null
  const consumer = exchange.consumer
  return consumer !== null && allow.has(consumer.name) ? null : notAllowed
}
