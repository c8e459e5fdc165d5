// The primary: opens the segment and the listening socket, starts the workers over them, checks the endpoints' health and answers the
// admin listener. It sees no request.
import { compile, type RouteTable } from './config/compile.js'
import { type Loaded, serviceEnvironment } from './config/load.js'
import type { Settings } from './config/settings.js'
import { type Admin, startAdmin } from './control/admin.js'
import { CertificateWatch } from './control/certificate-watch.js'
import { type HealthChecks, startHealthChecks } from './control/health-checks.js'
import { chooseIsolation, type Isolation } from './control/isolation.js'
import {
  closeSocket,
  type ListeningSocket,
  listenOnceOrphansLeave,
  openDoorAgain,
  openSocket,
} from './control/listening-socket.js'
import { Reloader, type ReloaderOptions, type ReloadResult } from './control/reload.js'
import { serviceManager } from './control/service-manager.js'
import { SharedState } from './control/shared-state.js'
import {
  spawnProcess,
  spawnThread,
  WORKER_LISTEN_FD,
  WORKER_LIVE_FD,
  WORKER_SEGMENT_FD,
  WORKER_STDOUT_FD,
} from './control/spawn.js'
import { StartError } from './control/start-error.js'
import { createStatus } from './control/status.js'
import { Supervisor } from './control/supervisor.js'
import { type Former, type Offer, offerTakeover, takeOver, takeoverPath } from './control/takeover.js'
import { watchFile } from './control/watch.js'
import { Breaker } from './proxy/breaker.js'
import { type SegmentHandle, segmentHandle } from './state/segment.js'
import { createLog } from './telemetry/log.js'

/** How often the segment's clock is written into it, for a start after the machine's next boot. */
const TOUCH_MS = 1000

export interface Running {
  readonly port: number
  readonly adminPort: number
  readonly isolation: Isolation
  /** Settles when the gateway has ended: with its exit code. */
  readonly ended: Promise<number>
  /** SIGHUP: reads the configuration again. */
  reload(by: ReloadResult['by']): Promise<ReloadResult>
  /** SIGUSR2: begins to replace the workers one by one. '', or why it does not. */
  restart(): string
  /** SIGTERM's way out. */
  drain(): void
  /** Ends the workers at once, with what they have in flight. */
  kill(): void
}

/** The socket before the state: where another gateway has both, its port is what to tell of. */
async function openSocketAndState(
  table: RouteTable,
  settings: Settings,
  isolation: Isolation,
  former: Former | null,
  listenFds: number,
): Promise<{ socket: ListeningSocket; state: SharedState }> {
  const openState = (): SharedState => new SharedState(table, settings, isolation, former?.segmentFd)
  const socket = await openSocket(settings, isolation, former, listenFds)
  if (!(socket instanceof StartError)) return { socket, state: openState() }
  let state: SharedState
  try {
    state = openState()
  } catch {
    throw socket
  }
  return { socket: await listenOnceOrphansLeave(settings, () => state.hasOrphans()), state }
}

function firstGeneration(options: ReloaderOptions): Reloader {
  try {
    return new Reloader(options)
  } catch (error) {
    // Workers of an earlier start have records that cannot be taken from them; they leave within moments.
    throw new StartError((error as Error).message)
  }
}

/**
 * Starts the gateway and resolves when every worker listens.
 * @param load reads the configuration again, for a reload
 * @param takesOver from a gateway that runs
 * @throws StartError when it cannot: nothing is left running then, and one that runs goes on
 */
export async function startPrimary(loaded: Loaded, load: () => Loaded, takesOver = false): Promise<Running> {
  const { config, settings } = loaded
  const draft = compile(config, settings)
  const isolation = chooseIsolation(settings)
  const log = createLog({ level: settings.logLevel })
  const former = takesOver ? takeOver(settings, isolation) : null
  const environment = serviceEnvironment()
  const service = serviceManager(environment, log)
  const { socket, state } = await openSocketAndState(draft, settings, isolation, former, environment.listenFds)
  const { segment } = state
  const { fd: listenFd, port } = socket
  log.info(
    {
      workers: settings.workers,
      isolation: isolation.kind,
      why: isolation.why,
      state: segment.notice,
      node: process.versions.node,
      ...(former === null ? {} : { takesOverFrom: former.pid }),
      ...(state.orphanCount > 0 ? { orphans: state.orphanCount } : {}),
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
  let checks: HealthChecks | null = null
  let offer: Offer | null = null
  const reloader = firstGeneration({
    loaded,
    load,
    state,
    isChangingHands: () => offer?.isTaken === true,
    log,
    oldest: () => supervisor.oldestGeneration,
    onBegin: () => service.reloading(),
    onEnd: () => service.ready(),
    publish: async (generation, table) => {
      await supervisor.reload(generation)
      checks?.update(table.services)
    },
  })
  const handle: SegmentHandle =
    listenFd === null
      ? segmentHandle(segment)
      : {
          kind: 'mapped',
          fd: WORKER_SEGMENT_FD,
          bytes: segment.bytes,
          liveFd: WORKER_LIVE_FD,
          liveBytes: segment.live.byteLength,
        }
  const certificates = watchCertificates()
  const supervisor: Supervisor = new Supervisor({
    workers: settings.workers,
    table: state.workers,
    nowUs: () => segment.nowUs(),
    log,
    memoryMaxBytes: isolation.kind === 'process' ? settings.workerMemoryMaxBytes : 0,
    drainTimeoutMs: settings.drainTimeoutMs,
    spawn: () =>
      listenFd === null
        ? spawnThread(settings.maxHeaderBytes)
        : spawnProcess(segment, listenFd, settings.maxHeaderBytes),
    startMessage: (slot, pid) => {
      const owner = state.takeOwner(pid)
      if (owner < 0) {
        log.error('no owner index is free for another worker: waiting for workers of an earlier start to leave')
        return null
      }
      return {
        type: 'start',
        slot,
        owner,
        generation: reloader.generation,
        settings,
        segment: handle,
        spec: state.spec,
        listenFd: listenFd === null ? null : WORKER_LISTEN_FD,
        isSocketShared: socket.isKept || socket.isFormers,
        port,
        stdoutFd: listenFd === null ? 1 : WORKER_STDOUT_FD,
        certificates: certificates?.current ?? null,
      }
    },
    onListening: (slot, workerPort, uwsVersion) => {
      log.info({ slot, port: workerPort, uWebSockets: uwsVersion }, 'worker listens')
      if (supervisor.ready) allListen()
    },
    onGone: (owner, slot) => state.workerGone(owner, slot),
    onHopeless: (reason) => hopeless(new StartError(`no worker can start: ${reason}`)),
  })

  let leaving = false
  const status = createStatus({
    reloader,
    state,
    isolation,
    certificates,
    supervisor,
    workers: settings.workers,
    isLeaving: () => leaving,
  })
  const restart = (): string => {
    if (isolation.kind === 'thread') return 'workers are threads, and those cannot be replaced one by one'
    if (leaving) return 'the gateway is draining'
    void supervisor.restart()
    return ''
  }
  const openAdmin = (adminPort: number): Promise<Admin> =>
    startAdmin({
      host: settings.adminHost,
      port: adminPort,
      log,
      ...status,
      holdBreaker: (name, as) => {
        const service = reloader.table.services.find((one) => one.name === name && one.breaker !== null)
        if (service === undefined) return false
        // The primary makes no calls, so the index of the worker whose permits these would be does not matter.
        const breaker = new Breaker(state.breakers, service, 0)
        breaker.onChange = (change) => log.warn({ service: name, ...change }, 'breaker changed state')
        breaker.hold(as, segment.nowUs())
        return true
      },
      reload: () => reloader.reload('admin'),
      restart,
    }).catch((error: Error) => {
      throw new StartError(error.message)
    })
  // A gateway that is taken over has the port until we are sure of ourselves.
  let admin: Admin | null = former === null ? await openAdmin(settings.adminPort) : null
  supervisor.start()
  try {
    await listening
    if (former !== null) {
      await former.takeAdmin()
      admin = await openAdmin(settings.adminPort)
      await former.ready()
    }
  } catch (error) {
    // Connections that ours have accepted beside its own are answered yet.
    if (former === null) supervisor.killAll()
    else await supervisor.drain(false)
    certificates?.stop()
    await admin?.close()
    former?.giveUp()
    throw error instanceof StartError ? error : new StartError((error as Error).message)
  }
  const adminPort = admin!.port
  checks = startHealthChecks({ table: state.health, services: reloader.table.services, log })
  /** Orphans whose socket is ours now shut its door when they leave. */
  function openDoor(): void {
    const isTheirs = socket.isFormers || (socket.isKept && state.orphanCount > 0)
    if (isTheirs && !leaving) openDoorAgain(socket)
  }
  const touch = setInterval(() => {
    segment.touch()
    state.buryOrphans()
    openDoor()
  }, TOUCH_MS)
  openDoor()
  const unwatch =
    settings.watchConfig === 'on' ? watchFile(settings.configFile, () => void reloader.reload('file')) : () => {}

  if (isolation.kind === 'process' && settings.state !== 'none') {
    offer = offerTakeover({
      path: takeoverPath(settings.state),
      host: settings.host,
      port,
      socketIsKept: socket.isKept,
      listenFd: listenFd!,
      segmentFd: segment.fd,
      log,
      releaseAdmin: () => (leaving ? null : admin!.close()),
      restoreAdmin: () =>
        void openAdmin(adminPort).then(
          (again) => {
            admin = again
          },
          (error: Error) => log.error({ err: error }, 'the admin listener cannot be opened again'),
        ),
      leave: () => void drain(false),
    })
  }

  log.info({ host: settings.host, port, adminHost: settings.adminHost, adminPort }, 'listening')
  service.ready()

  function watchCertificates(): CertificateWatch | null {
    if (config.tls === undefined) return null
    try {
      return new CertificateWatch(config.tls, log, (changed) =>
        supervisor.tell({ type: 'certificates', certificates: changed }),
      )
    } catch (error) {
      throw new StartError(`tls: ${(error as Error).message}`)
    }
  }

  /** @param last nobody else accepts from the listening socket */
  async function drain(last: boolean): Promise<void> {
    if (leaving) return
    leaving = true
    service.stopping()
    unwatch()
    offer?.close()
    const { shutdownDelayMs } = settings
    if (shutdownDelayMs > 0 && last) {
      log.info({ shutdownDelayMs }, 'not ready any more, serving on')
      await new Promise((resolve) => setTimeout(resolve, shutdownDelayMs))
    }
    log.info('draining')
    certificates?.stop()
    checks?.stop()
    closeSocket(socket)
    await supervisor.drain(last && !socket.isKept)
    clearInterval(touch)
    segment.touch()
    await admin?.close()
    log.info('ended')
    end(0)
  }
  return {
    port,
    adminPort,
    isolation,
    ended,
    reload: (by) => reloader.reload(by),
    restart,
    drain: () => void drain(true),
    kill: () => {
      if (listenFd !== null) supervisor.killAll()
      // Ended under their uWS, threads abort the process: a core dump for nothing.
      else process.kill(process.pid, 'SIGKILL')
    },
  }
}

/** `tidegate start`: runs until a signal ends it. A second signal does not wait for what is in flight. */
export async function runPrimary(
  loaded: Loaded,
  load: () => Loaded,
  onListening: (running: Running) => void,
  takesOver = false,
): Promise<number> {
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
  // Their default action is to end the process, and what they ask for is not worth that while it starts.
  process.on('SIGHUP', () => void running?.reload('signal'))
  process.on('SIGUSR2', () => {
    const problem = running?.restart() ?? ''
    if (problem !== '') process.emitWarning(problem)
  })
  running = await startPrimary(loaded, load, takesOver)
  onListening(running)
  return running.ended
}
