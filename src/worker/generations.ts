// One worker's server, and which generation of the configuration a request gets: the newest when its head arrives.
// Requests in flight finish on their generation, which goes when the last of them has ended. Per request only one
// indirection runs here.
import type { TlsMaterial } from '../config/certificates.js'
import type { Consumer, RouteTable } from '../config/compile.js'
import type { EndpointConfig } from '../config/endpoint.js'
import type { Settings } from '../config/settings.js'
import { BodyMemory } from '../downstream/body-memory.js'
import { isTrusted } from '../downstream/client-address.js'
import type { Peers } from '../downstream/uws/peers.js'
import { UwsServer } from '../downstream/uws/server.js'
import { Deadlines } from '../exchange/deadlines.js'
import { addressKey } from '../policy/address-key.js'
import { DigestPool } from '../policy/digest-pool.js'
import { BranchCounts } from '../state/branch-counts.js'
import { BreakerTable } from '../state/breaker-table.js'
import { BulkheadTable } from '../state/bulkhead-table.js'
import type { WorkerCounters } from '../state/counters.js'
import { EndpointTable } from '../state/endpoint-table.js'
import { InFlightTable } from '../state/in-flight-table.js'
import { RateTable } from '../state/rate-table.js'
import { ReplayTable } from '../state/replay-table.js'
import type { SegmentSpec } from '../state/sections.js'
import type { Segment } from '../state/segment.js'
import type { AccessLog } from '../telemetry/access-log.js'
import type { Logger } from '../telemetry/log.js'
import { Upstreams } from '../upstream/upstreams.js'
import { createPhases, type Phases, type Shared } from './phases.js'
import { Shedder } from './shedder.js'

export interface WorkerParts {
  /** Of claims and permits in the kept tables (state/owners.ts). */
  readonly owner: number
  readonly settings: Settings
  readonly segment: Segment
  /** The worker's slot, and how large the tables are. */
  readonly slot: number
  readonly spec: SegmentSpec
  readonly counters: WorkerCounters
  readonly accessLog: AccessLog | null
  readonly log: Logger
  /** Null: the listener speaks cleartext. */
  readonly certificates: TlsMaterial | null
  /** '1.2' or '1.3'. */
  readonly minTlsVersion: string
  /** Whether this worker takes one connection more; `connections` are open with it. */
  readonly accepts: (connections: number) => boolean
  /** A generation is gone: `oldest` is the oldest that may still have requests. */
  readonly onRetired: (oldest: number) => void
}

export interface Worker {
  readonly peers: Peers
  /** For connections from now on. Throws, and leaves all as it was, when uWS does not take them. */
  useCertificates(certificates: TlsMaterial): void
  /** Requests whose head arrives from now on get this table. */
  use(generation: number, table: RouteTable): void
  /** From now on the service has these endpoints, in every generation. `slots`: their places in the endpoint table. */
  setEndpoints(service: string, endpoints: readonly EndpointConfig[], slots: readonly number[]): void
  /** Every few hundred milliseconds. */
  closeUnusedOfDrained(): void
  /** The oldest generation that requests may be on. */
  readonly oldest: number
  /** Bytes that request bodies hold. */
  readonly bodyBytes: number
  /**
   * Ends each connection with its next response. Resolves when no request is in flight and no connection is open. Waits
   * for idle connections until `idleMs` after noMoreCome.
   */
  drain(idleMs: number, noMoreCome: Promise<void>): Promise<void>
  close(): void
}

interface Generation {
  readonly number: number
  readonly table: RouteTable
  readonly phases: Phases
  readonly digestPool: DigestPool
}

/** Use it before the first connection comes, and after usePatches(). */
export function createWorker(parts: WorkerParts): Worker {
  const { owner, settings, segment, counters, accessLog, log } = parts
  const deadlines = new Deadlines(() => segment.nowUs())
  const endpoints = new EndpointTable(segment, parts.spec)
  endpoints.enter(parts.slot)
  const upstreams = new Upstreams({
    owner,
    worker: parts.slot,
    breakers: new BreakerTable(segment),
    endpoints,
    bulkheads: new BulkheadTable(segment),
    connections: settings.upstreamConnections,
    zone: settings.zone,
    nowUs: () => segment.nowUs(),
    onBreakerChange: (service, change) => log.warn({ service, ...change }, 'breaker changed state'),
    onOutlierChange: (service, { endpoint: { origin }, to, reason, forMs }) => {
      if (to === 'ejected') log.warn({ service, endpoint: origin, reason, forMs }, 'endpoint is ejected')
      else log.info({ service, endpoint: origin, reason }, 'ejected endpoint is back')
    },
  })
  const shared: Shared = {
    owner,
    settings,
    segment,
    counters,
    accessLog,
    log,
    deadlines,
    rates: new RateTable(segment, owner),
    inFlight: new InFlightTable(segment, parts.slot),
    replays: new ReplayTable(segment, owner),
    upstreams,
    branches: new BranchCounts(segment, parts.spec).ofWorker(parts.slot),
    bodyMemory: new BodyMemory(settings.bodyMemoryBytes, addressKey),
    shedder: new Shedder({ counters, upstreams, deadlines, log, nowUs: () => segment.nowUs() }),
  }
  /** Oldest first; the last one is what new requests get. */
  let generations: Generation[] = []
  let onQuiet: (() => void) | null = null

  const server = new UwsServer({
    certificates: parts.certificates,
    minTlsVersion: parts.minTlsVersion,
    deadlines,
    counters,
    log,
    nowUs: () => segment.nowUs(),
    accepts: parts.accepts,
    isTrusted: (address) => isTrusted(address, generations.at(-1)!.table.trustedProxies),
  })
  server.onEmpty = () => onQuiet?.()

  function use(number: number, table: RouteTable): void {
    const before = generations.at(-1)
    const digestPool =
      before !== undefined && sameSecrets(before.table.consumers, table.consumers)
        ? before.digestPool
        : new DigestPool(table.consumers, settings.hmacThreads)
    const next: Generation = { number, table, phases: createPhases(shared, table, digestPool), digestPool }
    generations.push(next)
    server.use(next.phases)
    shared.shedder.overload.use(table.shedding)
    if (before?.phases.inFlight === 0) retire(before)
    else if (before !== undefined) before.phases.onIdle = () => retire(before)
  }

  function retire(generation: Generation): void {
    generations = generations.filter((one) => one !== generation)
    generation.phases.close()
    if (!generations.some(({ digestPool }) => digestPool === generation.digestPool)) void generation.digestPool.close()
    parts.onRetired(generations[0]!.number)
    onQuiet?.()
  }

  async function drain(idleMs: number, noMoreCome: Promise<void>): Promise<void> {
    server.endConnections()
    await noMoreCome
    await new Promise<void>((resolve) => {
      let patient = true
      let looking = false
      const busy = (): boolean =>
        generations.some((one) => one.phases.inFlight > 0) || (patient && server.connections > 0)
      onQuiet = () => {
        if (looking || busy()) return
        if (server.connections === 0) return resolve()
        // A request may lie in a socket that this turn of the loop has not reached; after one more turn none does.
        looking = true
        setImmediate(() =>
          setImmediate(() => {
            looking = false
            if (!busy()) resolve()
          }),
        )
      }
      // Older generations tell when they retire.
      generations.at(-1)!.phases.onIdle = onQuiet
      setTimeout(() => {
        patient = false
        onQuiet?.()
      }, idleMs)
      onQuiet()
    })
  }

  return {
    peers: server.peers,
    useCertificates: (certificates) => server.useCertificates(certificates),
    use,
    setEndpoints: (service, endpoints, slots) => shared.upstreams.setEndpoints(service, endpoints, slots),
    closeUnusedOfDrained: () => shared.upstreams.closeUnusedOfDrained(),
    get oldest() {
      return generations[0]!.number
    },
    get bodyBytes() {
      return shared.bodyMemory.bytes
    },
    drain,
    close(): void {
      deadlines.close()
      shared.shedder.close()
      server.close()
      void shared.upstreams.close()
      for (const { digestPool } of generations) void digestPool.close()
    },
  }
}

/** The threads that check signatures are given the secrets when they start. */
function sameSecrets(before: readonly Consumer[], after: readonly Consumer[]): boolean {
  return JSON.stringify(before) === JSON.stringify(after)
}
