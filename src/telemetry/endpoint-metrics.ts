// What /metrics and /status show of each endpoint. Runs per scrape, in the primary, from the segment alone.
import type { Service } from '../config/compile.js'
import { EJECTION_REASONS, type EjectionReason, FIELD } from '../state/endpoint-record.js'
import { type EndpointTable, type HealthState, OUT } from '../state/endpoint-table.js'
import type { Exposition } from './exposition.js'

const WHY = ['down', 'drained', 'ejected'] as const

export interface EndpointStatus {
  readonly health: HealthState
  /** Why it gets no requests; empty where it gets them. */
  readonly out: readonly (typeof WHY)[number][]
  /** Null where it is not ejected. */
  readonly ejected: { readonly reason: EjectionReason; readonly leftMs: number } | null
  /** Back from an ejection: it gets one request at a time. */
  readonly onProbation: boolean
  readonly attempts: number
  readonly failures: number
  readonly inFlight: number
  /** Until the head of the response: the mean of all, and the median lately; null where none has come. */
  readonly latencyMs: { readonly mean: number; readonly median: number } | null
  readonly ejections: Readonly<Record<EjectionReason, number>>
}

export function endpointStatus(table: EndpointTable, slot: number, nowUs: number): EndpointStatus {
  const record = table.record(slot)
  const bits = table.out(slot)
  const leftUs = record.get(FIELD.ejectedUntilUs) - nowUs
  // The bit of a service that ejects no more stays.
  const isEjected = (bits & OUT.ejected) !== 0 && leftUs > 0
  const out = WHY.filter((why) => (why === 'ejected' ? isEjected : (bits & OUT[why]) !== 0))
  const { attempts, failures, inFlight, latencyUs, latencies } = table.totals(slot)
  const ms = (us: number) => Math.round(us) / 1000
  return {
    health: table.health(slot),
    out,
    ejected: isEjected ? { reason: record.reason, leftMs: Math.round(leftUs / 1000) } : null,
    onProbation: (bits & OUT.probation) !== 0,
    attempts,
    failures,
    inFlight: Math.max(0, inFlight),
    latencyMs: latencies === 0 ? null : { mean: ms(latencyUs / latencies), median: ms(table.medianUs(slot)) },
    ejections: Object.fromEntries(EJECTION_REASONS.map((reason) => [reason, record.ejections(reason)])) as Record<
      EjectionReason,
      number
    >,
  }
}

export interface EndpointsSource {
  readonly services: readonly Service[]
  readonly endpoints: EndpointTable
  readonly nowUs: number
}

export function endpointMetrics(out: Exposition, { services, endpoints: table, nowUs }: EndpointsSource): void {
  const all = services.flatMap(({ name, endpoints }) =>
    endpoints.map(({ origin, slot }) => ({
      labels: { service: name, endpoint: origin },
      status: endpointStatus(table, slot, nowUs),
      totals: table.totals(slot),
    })),
  )
  out.family(
    'tidegate_endpoint_up',
    'gauge',
    'Whether the endpoint passes its health checks; one not checked yet counts as up.',
  )
  for (const { labels, status } of all) out.sample(status.health === 'down' ? 0 : 1, labels)
  out.family('tidegate_endpoint_out', 'gauge', '1 for each reason why the endpoint gets no requests.')
  for (const { labels, status } of all)
    for (const reason of WHY) out.sample(status.out.includes(reason) ? 1 : 0, { ...labels, reason })
  out.family('tidegate_endpoint_attempts_total', 'counter', 'Attempts at the endpoint that have ended.')
  for (const { labels, status } of all) out.sample(status.attempts, labels)
  out.family('tidegate_endpoint_failures_total', 'counter', 'Attempts that failed because of the endpoint.')
  for (const { labels, status } of all) out.sample(status.failures, labels)
  out.family(
    'tidegate_endpoint_latency_seconds',
    'summary',
    'From the start of an attempt to the head of its response; uploads that stream are left out.',
  )
  for (const { labels, totals } of all) {
    out.sample(totals.latencyUs / 1e6, labels, '_sum')
    out.sample(totals.latencies, labels, '_count')
  }
  out.family('tidegate_endpoint_requests_in_flight', 'gauge', 'Requests that the endpoint has.')
  for (const { labels, status } of all) out.sample(status.inFlight, labels)
  out.family('tidegate_endpoint_ejections_total', 'counter', 'How often the endpoint was ejected, by reason.')
  for (const { labels, status } of all)
    for (const reason of EJECTION_REASONS) out.sample(status.ejections[reason], { ...labels, reason })
}
