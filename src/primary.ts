// The primary: opens the segment and the listening socket, starts the workers over them, checks the endpoints' health and answers the
// admin listener. It sees no request.
import { type AddressInfo, createServer } from 'node:net'
import { native, nativeProblem } from '../native/index.js'
import { compile, type RouteTable } from './config/compile.js'
import type { Loaded } from './config/load.js'
import type { Settings } from './config/settings.js'
import { startAdmin } from './control/admin.js'
import { startHealthChecks } from './control/health-checks.js'
import { spawnProcess, spawnThread, WORKER_LISTEN_FD, WORKER_SEGMENT_FD } from './control/spawn.js'
import { createStatus } from './control/status.js'
import { Supervisor } from './control/supervisor.js'
import { Breaker } from './proxy/breaker.js'
import { AddressCounts } from './state/address-counts.js'
import { BreakerTable } from './state/breaker-table.js'
import { CountersReader, countersBytesPerWorker, WorkerTable } from './state/counters.js'
import { HealthTable } from './state/health-table.js'
import { RateTable } from './state/rate-table.js'
import { openSegment, type Segment, type SegmentHandle, type SegmentSpec, segmentHandle } from './state/segment.js'
import { createLog } from './telemetry/log.js'

/** Connections the kernel queues while workers are busy or being replaced; capped by net.core.somaxconn. */
const BACKLOG = 4096

/** How often the segment's clock is written into it, for a start after the machine's next boot. */
const TOUCH_MS = 1000

export interface Isolation {
  readonly kind: 'process' | 'thread'
  /** Why, for the log and /status. */
  readonly why: string
}

export interface Running {
  readonly port: number
  readonly adminPort: number
  readonly isolation: Isolation
  /** Settles when the gateway has ended: with its exit code. */
  readonly ended: Promise<number>
  /** SIGTERM's way out. */
  drain(): void
  /** Ends the workers at once, with what they have in flight. */
  kill(): void
}

/** A start that cannot be: the message says why and what to do. */
export class StartError extends Error {}

function chooseIsolation(settings: Settings): Isolation {
  if (settings.isolation === 'thread') return { kind: 'thread', why: 'TIDEGATE_ISOLATION=thread' }
  if (native !== null) {
    return {
      kind: 'process',
      why: settings.isolation === 'process' ? 'TIDEGATE_ISOLATION=process' : 'native addon loaded',
    }
  }
  if (settings.isolation === 'process') throw new StartError(`TIDEGATE_ISOLATION=process: ${nativeProblem}`)
  return { kind: 'thread', why: nativeProblem }
}

/** What the native acceptor does, and uWS's own listener does not. */
function requireAcceptor(settings: Settings, isolation: Isolation): void {
  if (isolation.kind === 'process') return
  if (settings.proxyProtocol === 'on') {
    throw new StartError(
      `TIDEGATE_PROXY_PROTOCOL: "on" needs workers that are processes; they are threads here: ${isolation.why}`,
    )
  }
}

/** Where threads listen by themselves, SO_REUSEPORT would let a second gateway share the port unnoticed: look before. */
function probePort(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen({ host, port, exclusive: true }, () => {
      const free = (probe.address() as AddressInfo).port
      probe.close(() => resolve(free))
    })
  })
}

function portProblem(error: unknown, settings: Settings): StartError {
  const code = (error as NodeJS.ErrnoException).code
  const where = `${settings.host}:${settings.port}`
  if (code === 'EADDRINUSE') return new StartError(`TIDEGATE_PORT: ${where} is in use by another program`)
  if (code === 'EACCES')
    return new StartError(`TIDEGATE_PORT: not allowed to listen on ${where}; ports below 1024 need a privilege`)
  return new StartError(`TIDEGATE_HOST, TIDEGATE_PORT: cannot listen on ${where}: ${(error as Error).message}`)
}

function segmentSpec(table: RouteTable, settings: Settings): SegmentSpec {
  return {
    workers: settings.workers,
    rateLimitKeys: settings.rateLimitKeys,
    services: table.services.length,
    endpoints: table.endpoints.length,
    routes: table.routes.length,
    countersBytesPerWorker: countersBytesPerWorker(table.routes.length),
    countsAddresses: settings.maxConnectionsPerAddress > 0,
  }
}

function openState(spec: SegmentSpec, settings: Settings, isolation: Isolation): Segment {
  try {
    return openSegment(spec, {
      path: settings.state === 'none' ? null : settings.state,
      isolation: isolation.kind,
    })
  } catch (error) {
    throw new StartError(`TIDEGATE_STATE: ${(error as Error).message}`)
  }
}

/**
 * Starts the gateway and resolves when every worker listens.
 * @throws StartError when it cannot: nothing is left running then
 */
export async function startPrimary({ config, settings }: Loaded): Promise<Running> {
  const table = compile(config, settings)
  const isolation = chooseIsolation(settings)
  requireAcceptor(settings, isolation)
  const log = createLog({ level: settings.logLevel })
  let listenFd: number | null = null
  let port = settings.port
  if (isolation.kind === 'process') {
    try {
      const socket = native!.listen(settings.host, settings.port, BACKLOG)
      listenFd = socket.fd
      port = socket.port
    } catch (error) {
      throw portProblem(error, settings)
    }
  } else {
    port = await probePort(settings.host, port).catch((error: unknown) => {
      throw portProblem(error, settings)
    })
  }

  const spec = segmentSpec(table, settings)
  const segment = openState(spec, settings, isolation)
  const nowUs = (): number => segment.nowUs()
  const slots = new WorkerTable(segment, settings.workers)
  slots.reset()
  const breakers = new BreakerTable(segment)
  breakers.retain(table.services.map((service) => service.name))
  // To read, and to release what a dead worker held: the primary takes no charge, so its owner index does not matter.
  const rates = new RateTable(segment, 0)
  const health = new HealthTable(segment, table.endpoints.length)
  const addresses = new AddressCounts(segment)
  log.info(
    {
      workers: settings.workers,
      isolation: isolation.kind,
      why: isolation.why,
      state: segment.notice,
      node: process.versions.node,
    },
    'starting',
  )

  let end: (code: number) => void
  const ended = new Promise<number>((resolve) => {
    end = resolve
  })
  let allListen: () => void
  let hopeless: (error: StartError) => void
  const listening = new Promise<void>((resolve, reject) => {
    allListen = resolve
    hopeless = reject
  })
  const handle: SegmentHandle =
    listenFd === null ? segmentHandle(segment) : { kind: 'mapped', fd: WORKER_SEGMENT_FD, bytes: segment.bytes }
  const supervisor = new Supervisor({
    workers: settings.workers,
    table: slots,
    nowUs,
    log,
    spawn: () =>
      listenFd === null
        ? spawnThread(settings.maxHeaderBytes)
        : spawnProcess(segment.fd, listenFd, settings.maxHeaderBytes),
    startMessage: (slot) => ({
      type: 'start',
      slot,
      config,
      settings,
      segment: handle,
      spec,
      listenFd: listenFd === null ? null : WORKER_LISTEN_FD,
      port,
    }),
    onListening: (slot, workerPort, uwsVersion) => {
      port = workerPort
      log.info({ slot, port, uWebSockets: uwsVersion }, 'worker listens')
      if (supervisor.ready) allListen()
    },
    onGone: (slot) => {
      breakers.releaseWorker(slot)
      rates.release(slot)
      addresses.release(slot)
    },
    onHopeless: (reason) => hopeless(new StartError(`no worker can start: ${reason}`)),
  })

  const status = createStatus({
    table,
    segment,
    isolation,
    slots,
    health,
    breakers,
    rates,
    counters: new CountersReader(segment, settings.workers, table.routes.length),
    supervisor,
  })
  const admin = await startAdmin({
    host: settings.adminHost,
    port: settings.adminPort,
    log,
    ...status,
    holdBreaker: (name, as) => {
      const service = table.services.find((one) => one.name === name && one.breaker !== null)
      if (service === undefined) return false
      // The primary makes no calls, so the index of the worker whose permits these would be does not matter.
      const breaker = new Breaker(breakers, service, 0)
      breaker.onChange = (change) => log.warn({ service: name, ...change }, 'breaker changed state')
      breaker.hold(as, nowUs())
      return true
    },
  }).catch((error: Error) => {
    throw new StartError(error.message)
  })
  supervisor.start()
  try {
    await listening
  } catch (error) {
    supervisor.killAll()
    await admin.close()
    throw error
  }
  const checks = startHealthChecks({ table: health, services: table.services, log })
  const touch = setInterval(() => segment.touch(), TOUCH_MS)
  log.info({ host: settings.host, port, adminHost: settings.adminHost, adminPort: admin.port }, 'listening')

  async function drain(): Promise<void> {
    log.info('draining')
    checks.stop()
    // The workers close theirs. As long as anybody holds the socket open, who comes now waits in its queue for nobody.
    if (listenFd !== null) native!.closeFd(listenFd)
    await supervisor.drain()
    clearInterval(touch)
    segment.touch()
    await admin.close()
    log.info('ended')
    end(0)
  }
  return {
    port,
    adminPort: admin.port,
    isolation,
    ended,
    drain: () => void drain(),
    kill: () => {
      if (listenFd !== null) supervisor.killAll()
      // Ended under their uWS, threads abort the process: a core dump for nothing.
      else process.kill(process.pid, 'SIGKILL')
    },
  }
}

/** `tidegate start`: runs until a signal ends it. A second signal does not wait for what is in flight. */
export async function runPrimary(loaded: Loaded, onListening: (running: Running) => void): Promise<number> {
  let running: Running | null = null
  let signals = 0
  const stop = (): void => {
    // Nothing is served yet; workers leave with the primary.
    if (running === null) process.exit(0)
    if (signals++ === 0) return running.drain()
    running.kill()
    process.exit(1)
  }
  // Before the start: a signal that comes while it lasts, or right behind the line that says it is over, has its default action else.
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  running = await startPrimary(loaded)
  onListening(running)
  return running.ended
}
