// Readiness, /status and /metrics for the admin listener, read from the segment on demand. Decides nothing.
import { readFileSync } from 'node:fs'
import type { TlsMaterial } from '../config/certificates.js'
import type { Endpoint } from '../config/compile.js'
import { endpointStatus } from '../telemetry/endpoint-metrics.js'
import { renderMetrics } from '../telemetry/metrics.js'
import type { HealthChecks } from './health-checks.js'
import type { Isolation } from './isolation.js'
import { isoOf } from './operator.js'
import type { Reloader } from './reload.js'
import type { SharedState } from './shared-state.js'

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

export interface StatusSource {
  readonly reloader: Pick<Reloader, 'table' | 'generation' | 'last' | 'counts'>
  readonly state: SharedState
  readonly isolation: Isolation
  /** The listener's certificates; null if it speaks cleartext. */
  readonly certificates: { readonly current: TlsMaterial } | null
  readonly supervisor: { readonly ready: boolean; readonly listening: number }
  /** Null until the first check begins. */
  readonly checks: () => HealthChecks | null
  readonly workers: number
  /** The gateway is leaving. Set first, because readiness must fail before anything else does. */
  readonly isLeaving: () => boolean
}

export interface StatusPages {
  ready(): { readonly ready: boolean; readonly why: string }
  status(): object
  metrics(): string
}

export function createStatus(source: StatusSource): StatusPages {
  const { reloader, isolation, supervisor, certificates, isLeaving } = source
  const {
    segment,
    workers: slots,
    endpoints,
    bulkheads,
    branches,
    breakers,
    drains,
    rates,
    replays,
    counters,
  } = source.state

  const breakerStates = () => {
    const records = breakers.records()
    return reloader.table.services.flatMap(({ name }) => {
      const record = records.get(name)
      return record === undefined ? [] : [{ service: name, ...record.snapshot() }]
    })
  }
  /** Nothing where the endpoint is not checked. */
  const checkStatus = (endpoint: Endpoint) => {
    const report = source.checks()?.report(endpoint) ?? null
    return report === null ? {} : { healthSince: report.since, lastFailedCheck: report.lastFailure }
  }
  /** There is one slot more than workers: an empty slot is shown only if a worker is missing. */
  const workers = () => {
    const all = slots.readAll()
    let missing = source.workers - all.filter(({ state }) => state !== 'empty').length
    return all.filter(({ state }) => state !== 'empty' || missing-- > 0)
  }
  const branchTotals = () =>
    reloader.table.branches.map((branch) => ({ ...branch, totals: branches.totals(branch.slot) }))
  const rateTable = () => ({ ...rates.totals(), ...rates.occupancy() })
  const replayTable = () => ({ ...replays.totals(), ...replays.occupancy(Math.floor(Date.now() / 1000)) })

  return {
    ready() {
      if (isLeaving()) return { ready: false, why: 'draining' }
      if (supervisor.ready) return { ready: true, why: '' }
      return { ready: false, why: `${supervisor.listening} of ${source.workers} workers listen` }
    },

    status() {
      const nowUs = segment.nowUs()
      return {
        version,
        node: process.versions.node,
        pid: process.pid,
        isolation: isolation.kind,
        isolationWhy: isolation.why,
        draining: isLeaving(),
        ready: supervisor.ready && !isLeaving(),
        config: { generation: reloader.generation.number, lastReload: reloader.last },
        state: {
          path: segment.path,
          kind: segment.kind,
          bytes: segment.bytes,
          restored: segment.restored,
          notice: segment.notice,
        },
        workers: workers().map(({ heartbeatUs, startedUs, ...worker }) => ({
          ...worker,
          heartbeatAgoMs: Math.round((nowUs - heartbeatUs) / 1000),
          uptimeMs: Math.round((nowUs - startedUs) / 1000),
        })),
        services: reloader.table.services.map((service) => ({
          name: service.name,
          ...(service.bulkhead !== null && { bulkhead: bulkheads.read(service.slot, service.bulkhead) }),
          endpoints: service.endpoints.map((endpoint) => ({
            origin: endpoint.origin,
            ...endpointStatus(endpoints, endpoint.slot, nowUs),
            ...checkStatus(endpoint),
          })),
        })),
        // Also those of endpoints that no service has now.
        drained: drains.all.map(({ service, origin, sinceUs }) => ({
          service,
          endpoint: origin,
          since: isoOf(sinceUs),
        })),
        splits: branchTotals()
          .filter(({ kind }) => kind === 'split')
          .map(({ route, service, share, totals }) => ({ route, service, share, requests: totals.picked })),
        mirrors: branchTotals()
          .filter(({ kind }) => kind === 'mirror')
          .map(({ route, service, share, totals: { picked, ...totals } }) => ({ route, service, share, ...totals })),
        breakers: breakerStates(),
        rateTable: rateTable(),
        replayTable: replayTable(),
        // Field by field, because the object also has the keys.
        certificates: (certificates?.current.certificates ?? []).map(({ file, names, notAfterMs }) => ({
          file,
          names,
          notAfter: new Date(notAfterMs).toISOString(),
        })),
      }
    },

    metrics() {
      return renderMetrics({
        routes: reloader.table.routes,
        services: reloader.table.services,
        counters,
        branches: branchTotals(),
        workers: slots.readAll(),
        reloads: reloader.counts,
        reloadedOk: reloader.last?.ok ?? true,
        endpoints,
        bulkheads,
        breakers: breakerStates(),
        rateTable: rateTable(),
        replayTable: replayTable(),
        certificates: certificates?.current.certificates ?? [],
        nowUs: segment.nowUs(),
        build: { version, node: process.versions.node, isolation: isolation.kind },
      })
    },
  }
}
