// Writes the counts as Prometheus text (exposition format 0.0.4). Runs per scrape, in the primary, from the segment
// alone: no worker is asked, so a worker that hangs or has died is still counted.
import type { Branch, Route, Service } from '../config/compile.js'
import { MIRROR_DROPS } from '../config/mirror.js'
import { IMPORTANCES } from '../config/shedding.js'
import type { BranchTotals } from '../state/branch-counts.js'
import { type BreakerState, STATE_NAMES } from '../state/breaker-record.js'
import type { BulkheadTable } from '../state/bulkhead-table.js'
import type { CountersReader, RouteTotals } from '../state/counters.js'
import { countUpTo } from '../state/durations.js'
import type { EndpointTable } from '../state/endpoint-table.js'
import { EXPIRED, HEADS_REFUSED, STUCK, TURNED_AWAY, type WorkerStatus } from '../state/worker-table.js'
import { endpointMetrics } from './endpoint-metrics.js'
import { Exposition } from './exposition.js'
import { toHdr } from './quantiles.js'

interface BreakerStatus {
  readonly service: string
  readonly state: BreakerState
  /** The state in which an operator holds the breaker, if any. */
  readonly held: 'open' | 'closed' | null
  /** How often it changed to each state. */
  readonly transitions: Readonly<Record<BreakerState, number>>
  /** Calls it has refused, also those that a fallback then responded to. */
  readonly refused: number
}

interface RateTableStatus {
  /** Slots for buckets and quotas, and how many are in use; the next two are the same for windows. */
  readonly slots: number
  readonly live: number
  readonly windowSlots: number
  readonly liveWindows: number
  /** Slots examined beyond the first. */
  readonly probes: number
  readonly evictions: number
  /** Decisions that found no room for their key. */
  readonly full: number
  /** Charges on the slots that keys without room share. */
  readonly shared: number
}

interface ReplayTableStatus {
  readonly slots: number
  readonly live: number
  readonly repeated: number
  /** Signatures refused because the table was full. */
  readonly full: number
  readonly stuck: number
  /** … or because their consumer had used its share of it. */
  readonly share: number
}

/** A branch, and what was counted of it. */
export type BranchStatus = Branch & { readonly totals: BranchTotals }

export interface MetricsSource {
  readonly routes: readonly Route[]
  readonly services: readonly Service[]
  readonly counters: CountersReader
  readonly branches: readonly BranchStatus[]
  readonly workers: readonly WorkerStatus[]
  readonly endpoints: EndpointTable
  readonly bulkheads: BulkheadTable
  readonly breakers: readonly BreakerStatus[]
  readonly rateTable: RateTableStatus | null
  readonly replayTable: ReplayTableStatus | null
  readonly reloads: { readonly ok: number; readonly failed: number }
  /** Time of the last reload, or of the start. */
  readonly reloadedOk: boolean
  readonly certificates: readonly { readonly file: string; readonly notAfterMs: number }[]
  readonly nowUs: number
  /** Labels of tidegate_build_info: version, node, isolation … */
  readonly build: Readonly<Record<string, string>>
}

/** Upper bounds in seconds: those of Prometheus' own clients, finer below 5 ms, and up to a minute. */
const BOUNDS = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const PERCENTILES = [50, 90, 95, 99, 99.9]

/** Writes one number per route that has had requests. */
function perRoute(
  out: Exposition,
  all: readonly RouteCounts[],
  name: string,
  help: string,
  value: (totals: RouteTotals) => number,
): void {
  out.family(name, 'counter', help)
  for (const { route, totals } of all) out.sample(value(totals), { route })
}

interface RouteCounts {
  /** '' for requests that matched no route: Prometheus treats it as a missing label. No route can have that name. */
  readonly route: string
  readonly totals: RouteTotals
}

/** Never throws. Takes a few milliseconds for a hundred routes. */
export function renderMetrics(source: MetricsSource): string {
  const out = new Exposition()
  const used: RouteCounts[] = []
  for (const { name, slot } of [...source.routes, { name: '', slot: source.counters.routes }]) {
    const totals = source.counters.totals(slot)
    if (totals.requests > 0) used.push({ route: name, totals })
  }
  out.family('tidegate_build_info', 'gauge', 'What runs here; always 1.')
  out.sample(1, source.build)
  reloads(out, source)
  requests(out, used, source)
  durations(out, used)
  upstreams(out, used, source)
  endpointMetrics(out, source)
  bulkheads(out, source)
  branches(out, source)
  breakers(out, source)
  rateTable(out, source)
  replayTable(out, source)
  workers(out, source)
  certificates(out, source)
  return out.toString()
}

function reloads(out: Exposition, { reloads, reloadedOk }: MetricsSource): void {
  out.family('tidegate_config_reloads_total', 'counter', 'Times the configuration was read again, by what came of it.')
  out.sample(reloads.ok, { result: 'ok' })
  out.sample(reloads.failed, { result: 'failed' })
  out.family(
    'tidegate_config_last_reload_successful',
    'gauge',
    'Whether the configuration that was read last is the one that is served.',
  )
  out.sample(reloadedOk ? 1 : 0)
}

function requests(out: Exposition, used: readonly RouteCounts[], { routes }: MetricsSource): void {
  out.family(
    'tidegate_requests_total',
    'counter',
    'Finished requests by route and status; 499 where the client left first.',
  )
  for (const { route, totals } of used)
    for (const [status, count] of totals.statuses) out.sample(count, { route, status })
  out.family(
    'tidegate_rejections_total',
    'counter',
    "Requests that ended other than with the upstream's own answer, by outcome code.",
  )
  for (const { route, totals } of used) for (const [code, count] of totals.codes) out.sample(count, { route, code })
  perRoute(out, used, 'tidegate_request_bytes_total', 'Body bytes received from clients.', (totals) => totals.bytesIn)
  perRoute(out, used, 'tidegate_response_bytes_total', 'Body bytes sent to clients.', (totals) => totals.bytesOut)
  const limited = routes.filter(
    (route) => route.limits.length + route.inFlightLimits.length + route.guessLimits.length > 0,
  )
  const byName = new Map(used.map(({ route, totals }) => [route, totals]))
  out.family('tidegate_rate_limit_refusals_total', 'counter', 'Requests refused by a rate limit.')
  for (const { name } of limited) out.sample(byName.get(name)?.codes.get('rate_limited') ?? 0, { route: name })
  out.family('tidegate_fallbacks_total', 'counter', 'Requests that a fallback answered in place of the service.')
  for (const { name, fallback } of routes) {
    if (fallback !== null) out.sample(sumOf(byName.get(name)?.fallbacks), { route: name })
  }
  out.family(
    'tidegate_fallback_causes_total',
    'counter',
    'The same, by the service that did not answer and the code of what went wrong.',
  )
  for (const { name, handler, fallback } of routes) {
    if (fallback === null) continue
    for (const [code, count] of byName.get(name)?.fallbacks ?? [])
      out.sample(count, { route: name, service: handler.service?.name ?? '', code })
  }
  out.family('tidegate_shed_requests_total', 'counter', 'Requests refused because a worker was overloaded.')
  for (const { route, totals } of used) {
    const importance = IMPORTANCES[routes.find(({ name }) => name === route)?.importance ?? -1]
    if (importance !== undefined) out.sample(totals.shed, { route, importance })
  }
  out.family('tidegate_rate_limit_reports_total', 'counter', 'Requests a limit in report mode would have refused.')
  for (const { name } of limited) out.sample(byName.get(name)?.limitReports ?? 0, { route: name })
}

function sumOf(counts: ReadonlyMap<string, number> = new Map()): number {
  return [...counts.values()].reduce((sum, count) => sum + count, 0)
}

function durations(out: Exposition, used: readonly RouteCounts[]): void {
  out.family('tidegate_request_duration_seconds', 'histogram', "From the request's head to the end of the answer.")
  for (const { route, totals } of used) {
    for (const le of BOUNDS) out.sample(countUpTo(totals.durations, le * 1e6), { route, le }, '_bucket')
    out.sample(totals.requests, { route, le: '+Inf' }, '_bucket')
    out.sample(totals.durationUs / 1e6, { route }, '_sum')
    out.sample(totals.requests, { route }, '_count')
  }
  out.family(
    'tidegate_request_duration_quantile_seconds',
    'gauge',
    'Percentiles over all workers since the start, within 4 %.',
  )
  for (const { route, totals } of used) {
    const histogram = toHdr(totals.durations)
    // Not `quantile`: that label belongs to summaries, and the histogram already has _sum and _count.
    for (const percentile of PERCENTILES) {
      out.sample(histogram.getValueAtPercentile(percentile) / 1e6, { route, percentile })
    }
  }
}

function upstreams(out: Exposition, used: readonly RouteCounts[], { routes }: MetricsSource): void {
  const forwarded = used.filter(({ totals }) => totals.forwarded > 0)
  perRoute(
    out,
    forwarded,
    'tidegate_upstream_attempts_total',
    'Attempts to have a request answered by an endpoint.',
    (totals) => totals.attempts,
  )
  perRoute(
    out,
    forwarded,
    'tidegate_upstream_retries_total',
    'Attempts beyond the first of a request.',
    (totals) => totals.attempts - totals.forwarded,
  )
  out.family('tidegate_retries_total', 'counter', 'Attempts that followed another one, by what that came to.')
  for (const { route, totals } of forwarded) {
    for (const reason of ['connect', 'reset', 'timeout', 'status', 'out'] as const) {
      out.sample(totals.retries.get(reason) ?? 0, { route, reason })
    }
  }
  perRoute(
    out,
    forwarded,
    'tidegate_retries_refused_total',
    'Attempts that were not made because the retry budget of the service was used up.',
    (totals) => totals.retries.get('refused') ?? 0,
  )
  out.family('tidegate_hedges_total', 'counter', 'Attempts beside one that took long, sent or refused by their budget.')
  for (const { name, hedge } of routes) {
    if (hedge === null) continue
    const retries = used.find(({ route }) => route === name)?.totals.retries
    out.sample(retries?.get('hedge') ?? 0, { route: name, result: 'sent' })
    out.sample(retries?.get('hedge_refused') ?? 0, { route: name, result: 'refused' })
  }
  out.family(
    'tidegate_upstream_duration_seconds',
    'summary',
    "The service's own time from a request's first attempt to its last byte, without what was waited for the client.",
  )
  for (const { route, totals } of forwarded) {
    out.sample(totals.upstreamUs / 1e6, { route }, '_sum')
    out.sample(totals.forwarded, { route }, '_count')
  }
}

function bulkheads(out: Exposition, { services, bulkheads: table }: MetricsSource): void {
  const all = services.flatMap(({ name, slot, bulkhead }) =>
    bulkhead === null ? [] : [{ service: name, ...table.read(slot, bulkhead) }],
  )
  // Skipped: no service uses it.
  if (all.length === 0) return
  out.family('tidegate_bulkhead_limit', 'gauge', 'Most requests that a service may have in flight now.')
  for (const { service, limit } of all) out.sample(limit, { service })
  out.family('tidegate_bulkhead_in_flight', 'gauge', 'Requests that a service with such a limit has in flight.')
  for (const { service, inFlight } of all) out.sample(inFlight, { service })
  out.family('tidegate_bulkhead_waiting', 'gauge', 'Requests that wait for their turn.')
  for (const { service, waiting } of all) out.sample(waiting, { service })
  out.family('tidegate_bulkhead_waited_total', 'counter', 'Requests that had to wait, and then got their turn.')
  for (const { service, waited } of all) out.sample(waited, { service })
  out.family(
    'tidegate_bulkhead_refusals_total',
    'counter',
    'Requests refused because too many were in flight: at once (full), or after they had waited (late).',
  )
  for (const { service, refusedFull, refusedLate } of all) {
    out.sample(refusedFull, { service, reason: 'full' })
    out.sample(refusedLate, { service, reason: 'late' })
  }
}

function branches(out: Exposition, { branches: all }: MetricsSource): void {
  const splits = all.filter(({ kind }) => kind === 'split')
  const mirrors = all.filter(({ kind }) => kind === 'mirror')
  if (splits.length > 0) {
    out.family('tidegate_split_requests_total', 'counter', 'Requests that a split has given to each of its services.')
    for (const { route, service, totals } of splits) out.sample(totals.picked, { route, service })
    out.family('tidegate_split_share', 'gauge', "Share of a split's requests that each of its services is to get.")
    for (const { route, service, share } of splits) out.sample(share, { route, service })
  }
  if (mirrors.length === 0) return
  out.family(
    'tidegate_mirrored_requests_total',
    'counter',
    'Copies of requests that a mirror has sent, by whether the service responded with less than 500.',
  )
  for (const { route, service, totals } of mirrors) {
    out.sample(totals.answered, { route, service, result: 'answered' })
    out.sample(totals.failed, { route, service, result: 'failed' })
  }
  out.family('tidegate_mirror_drops_total', 'counter', 'Copies of requests that a mirror has not sent, by reason.')
  for (const { route, service, totals } of mirrors) {
    for (const reason of MIRROR_DROPS) out.sample(totals.dropped[reason], { route, service, reason })
  }
  out.family('tidegate_mirror_in_flight', 'gauge', 'Copies of requests whose responses a mirror waits for.')
  for (const { route, service, totals } of mirrors) out.sample(totals.inFlight, { route, service })
}

function breakers(out: Exposition, source: MetricsSource): void {
  out.family(
    'tidegate_breaker_state',
    'gauge',
    "1 for the state a service's breaker is in, or is held in, 0 for the others.",
  )
  for (const { service, state, held } of source.breakers) {
    for (const each of STATE_NAMES) out.sample(each === (held ?? state) ? 1 : 0, { service, state: each })
  }
  out.family('tidegate_breaker_held', 'gauge', "1 where an operator holds a service's breaker in that state.")
  for (const { service, held } of source.breakers) {
    for (const each of ['open', 'closed']) out.sample(each === held ? 1 : 0, { service, state: each })
  }
  out.family('tidegate_breaker_transitions_total', 'counter', "How often a service's breaker changed to each state.")
  for (const { service, transitions } of source.breakers) {
    for (const to of STATE_NAMES) out.sample(transitions[to], { service, to })
  }
  out.family('tidegate_breaker_refusals_total', 'counter', "Calls that a service's breaker refused.")
  for (const { service, refused } of source.breakers) out.sample(refused, { service })
}

function rateTable(out: Exposition, { rateTable: table }: MetricsSource): void {
  if (table === null) return
  out.family('tidegate_rate_table_slots', 'gauge', 'Keys the rate-limit table has slots for, by what the limits are.')
  out.sample(table.slots, { holds: 'buckets' })
  out.sample(table.windowSlots, { holds: 'windows' })
  out.family('tidegate_rate_table_live', 'gauge', 'Slots in use.')
  out.sample(table.live, { holds: 'buckets' })
  out.sample(table.liveWindows, { holds: 'windows' })
  out.family('tidegate_rate_table_probes_total', 'counter', 'Slots looked at beyond the first.')
  out.sample(table.probes)
  out.family('tidegate_rate_table_evictions_total', 'counter', 'Slots taken over from a key that no longer needed one.')
  out.sample(table.evictions)
  out.family('tidegate_rate_table_full_total', 'counter', 'Decisions that found no room for their key.')
  out.sample(table.full)
  out.family('tidegate_rate_table_shared_total', 'counter', 'Charges on slots that keys without room share.')
  out.sample(table.shared)
}

function replayTable(out: Exposition, { replayTable: table }: MetricsSource): void {
  // Skipped: no route uses it.
  if (table === null || table.slots === 0) return
  out.family('tidegate_replay_table_slots', 'gauge', 'Accepted signatures there is room for.')
  out.sample(table.slots)
  out.family('tidegate_replay_table_live', 'gauge', 'Accepted signatures that would still be good if they came again.')
  out.sample(table.live)
  out.family('tidegate_replays_total', 'counter', 'Requests refused because their signature had been accepted before.')
  out.sample(table.repeated)
  out.family(
    'tidegate_replay_table_full_total',
    'counter',
    'Requests refused because their signature could not be remembered.',
  )
  out.sample(table.full + table.stuck + table.share)
}

function workers(out: Exposition, { workers: all, nowUs }: MetricsSource): void {
  const alive = all.filter((worker) => worker.state !== 'empty')
  const gauge = (name: string, help: string, value: (worker: WorkerStatus) => number) => {
    out.family(name, 'gauge', help)
    for (const worker of alive) out.sample(value(worker), { worker: worker.slot })
  }
  const counter = (name: string, help: string, value: (worker: WorkerStatus) => number) => {
    out.family(name, 'counter', help)
    // One slot is used only during a rolling restart. Its counts stay.
    for (const worker of all) if (worker.startedUs > 0) out.sample(value(worker), { worker: worker.slot })
  }
  out.family('tidegate_workers', 'gauge', 'Workers by state.')
  for (const state of ['starting', 'listening', 'draining'] as const) {
    out.sample(all.filter((worker) => worker.state === state).length, { state })
  }
  gauge('tidegate_requests_in_flight', 'Requests begun and not finished.', (worker) => worker.inFlight)
  gauge('tidegate_connections', 'Open client connections.', (worker) => Math.max(0, worker.connections))
  const byReason = <Name extends string>(
    name: string,
    help: string,
    reasons: readonly Name[],
    counts: (worker: WorkerStatus) => Readonly<Record<Name, number>>,
  ) => {
    out.family(name, 'counter', help)
    for (const reason of reasons) {
      out.sample(
        all.reduce((sum, worker) => sum + counts(worker)[reason], 0),
        { reason },
      )
    }
  }
  byReason(
    'tidegate_connections_refused_total',
    'Connections closed before they had a request, by reason.',
    TURNED_AWAY,
    (worker) => worker.turnedAway,
  )
  byReason(
    'tidegate_connections_expired_total',
    'Connections closed because their next request did not come in time, by reason.',
    EXPIRED,
    (worker) => worker.expired,
  )
  byReason(
    'tidegate_connections_stuck_total',
    'Connections closed because the gateway had lost sight of them, by reason. Any is a fault of the gateway.',
    STUCK,
    (worker) => worker.stuck,
  )
  byReason(
    'tidegate_heads_refused_total',
    'Heads refused before they were requests, by reason.',
    HEADS_REFUSED,
    (worker) => worker.headsRefused,
  )
  gauge(
    'tidegate_worker_heartbeat_age_seconds',
    "Since the worker's last sign of life.",
    (worker) => Math.max(0, nowUs - worker.heartbeatUs) / 1e6,
  )
  gauge(
    'tidegate_worker_event_loop_delay_max_seconds',
    'Longest delay of the event loop between the last two heartbeats.',
    (worker) => worker.loopDelayUs / 1e6,
  )
  gauge(
    'tidegate_worker_shed_share',
    'Share of its requests that the worker has refused lately because it is overloaded.',
    (worker) => worker.overload?.refusedShare ?? 0,
  )
  gauge('tidegate_worker_memory_bytes', 'Resident memory, a second ago at most.', (worker) => worker.memoryBytes)
  gauge('tidegate_worker_body_memory_bytes', 'Memory that request bodies hold.', (worker) => worker.bodyBytes)
  counter('tidegate_worker_restarts_total', 'Workers that were replaced.', (worker) => worker.restarts)
  counter(
    'tidegate_access_log_dropped_total',
    'Access lines lost because their reader lagged or failed.',
    (worker) => worker.logDropped,
  )
}

function certificates(out: Exposition, source: MetricsSource): void {
  if (source.certificates.length === 0) return
  out.family(
    'tidegate_certificate_expiry_timestamp_seconds',
    'gauge',
    'When a certificate of the listener expires, Unix seconds.',
  )
  for (const { file, notAfterMs } of source.certificates) out.sample(notAfterMs / 1000, { file })
}
