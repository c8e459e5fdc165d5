// What the admin listener shows, read from the segment when somebody asks: readiness, /status and /metrics. Decides nothing.
import { readFileSync } from 'node:fs'
import type { TlsMaterial } from '../config/certificates.js'
import type { RouteTable } from '../config/compile.js'
import type { BreakerTable } from '../state/breaker-table.js'
import type { CountersReader, WorkerTable } from '../state/counters.js'
import type { HealthTable } from '../state/health-table.js'
import type { RateTable } from '../state/rate-table.js'
import type { Segment } from '../state/segment.js'
import { renderMetrics } from '../telemetry/metrics.js'

const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8')) as {
  version: string
}

export interface StatusSource {
  readonly table: RouteTable
  readonly segment: Segment
  readonly isolation: { readonly kind: string; readonly why: string }
  readonly slots: WorkerTable
  readonly health: HealthTable
  readonly breakers: BreakerTable
  readonly rates: RateTable
  readonly counters: CountersReader
  /** The listener's; null where it speaks cleartext. */
  readonly certificates: { readonly current: TlsMaterial } | null
  readonly supervisor: { readonly ready: boolean; readonly isDraining: boolean }
}

export interface StatusPages {
  ready(): { readonly ready: boolean; readonly why: string }
  status(): object
  metrics(): string
}

export function createStatus(source: StatusSource): StatusPages {
  const { table, segment, isolation, slots, health, breakers, rates, counters, supervisor, certificates } = source

  const breakerStates = () => {
    const records = breakers.records()
    return table.services.flatMap(({ name }) => {
      const record = records.get(name)
      return record === undefined ? [] : [{ service: name, ...record.snapshot() }]
    })
  }
  const rateTable = () => ({ ...rates.totals(), ...rates.occupancy() })

  return {
    ready() {
      if (supervisor.isDraining) return { ready: false, why: 'draining' }
      if (supervisor.ready) return { ready: true, why: '' }
      const listening = slots.readAll().filter((worker) => worker.state === 'listening').length
      return { ready: false, why: `${listening} of ${slots.slots} workers listen` }
    },

    status() {
      const nowUs = segment.nowUs()
      return {
        version,
        node: process.versions.node,
        pid: process.pid,
        isolation: isolation.kind,
        isolationWhy: isolation.why,
        draining: supervisor.isDraining,
        ready: supervisor.ready,
        state: {
          path: segment.path,
          kind: segment.kind,
          bytes: segment.bytes,
          restored: segment.restored,
          notice: segment.notice,
        },
        workers: slots.readAll().map(({ heartbeatUs, startedUs, ...worker }) => ({
          ...worker,
          heartbeatAgoMs: Math.round((nowUs - heartbeatUs) / 1000),
          uptimeMs: Math.round((nowUs - startedUs) / 1000),
        })),
        services: table.services.map((service) => ({
          name: service.name,
          endpoints: service.endpoints.map(({ origin, index }) => ({ origin, health: health.state(index) })),
        })),
        breakers: breakerStates(),
        rateTable: rateTable(),
        // Field by field: the keys are beside these.
        certificates: (certificates?.current.certificates ?? []).map(({ file, names, notAfterMs }) => ({
          file,
          names,
          notAfter: new Date(notAfterMs).toISOString(),
        })),
      }
    },

    metrics() {
      return renderMetrics({
        routes: table.routes,
        services: table.services,
        counters,
        workers: slots.readAll(),
        health,
        breakers: breakerStates(),
        rateTable: rateTable(),
        certificates: certificates?.current.certificates ?? [],
        nowUs: segment.nowUs(),
        build: { version, node: process.versions.node, isolation: isolation.kind },
      })
    },
  }
}
