// The primary: over a foundation (socket, segment) it starts the workers, checks the endpoints' health and answers
// the admin listener. A table of contents, from the start to the end: what each thing does is in the file that is
// named after it. It sees no request.
import type { EndpointInput } from '../config/endpoint-list.js'
import type { Loaded } from '../config/load.js'
import type { Settings } from '../config/settings.js'
import { checkDescriptors } from '../worker/descriptors.js'
import { type Admin, startAdmin } from './admin.js'
import { CertificateWatch } from './certificate-watch.js'
import { type Foundation, layFoundation } from './foundation.js'
import { type HealthChecks, startHealthChecks } from './health-checks.js'
import { closeSocket, openDoorAgain } from './listening-socket.js'
import { Operator } from './operator.js'
import { Places } from './places.js'
import { Reloader, type ReloadResult } from './reload.js'
import { workerKind } from './spawn.js'
import { StartError } from './start-error.js'
import { createStatus } from './status.js'
import { Supervisor } from './supervisor.js'
import { type Offer, offerTakeover, takeoverPath } from './takeover.js'
import { watchFile } from './watch.js'

/** How often the segment's clock is written into it, for a start after the machine's next boot. */
const TOUCH_MS = 1000

/**
 * Starts the gateway and resolves when every worker listens.
 * @param load reads the configuration again, for a reload
 * @param takesOver from a gateway that runs
 * @throws StartError when it cannot: nothing is left running then, and one that runs goes on
 */
export async function startPrimary(loaded: Loaded, load: () => Loaded, takesOver = false): Promise<Primary> {
  const primary = new Primary(await layFoundation(loaded, takesOver), load)
  await primary.start()
  return primary
}

export class Primary {
  readonly port: number
  /** As soon as it has started. */
  adminPort = 0
  /** Settles when the gateway has ended: with its exit code. */
  readonly ended: Promise<number>
  private readonly foundation: Foundation
  private readonly settings: Settings
  private readonly isolation: 'process' | 'thread'
  private readonly reloader: Reloader
  private readonly certificates: CertificateWatch | null
  private readonly supervisor: Supervisor
  private readonly operator: Operator
  private admin: Admin | null = null
  private checks: HealthChecks | null = null
  private offer: Offer | null = null
  private touch: NodeJS.Timeout | undefined
  private unwatch: () => void = () => {}
  private leaving = false
  /** How many endpoints there were when descriptors were last looked at. */
  private checkedEndpoints = 0
  private end: (code: number) => void = () => {}

  /** @throws StartError before anything runs */
  constructor(foundation: Foundation, load: () => Loaded) {
    this.foundation = foundation
    this.settings = foundation.loaded.settings
    this.isolation = foundation.isolation.kind
    this.port = foundation.socket.port
    this.ended = new Promise((resolve) => {
      this.end = resolve
    })
    this.reloader = this.prepareConfiguration(load)
    const { state, log } = foundation
    this.operator = new Operator({ state, log, services: () => this.reloader.table.services })
    this.operator.apply()
    this.certificates = this.watchCertificates()
    this.supervisor = this.prepareWorkers()
  }

  /** @throws StartError once what was begun is ended */
  async start(): Promise<void> {
    const { log, service, state } = this.foundation
    await this.startServing()
    this.checks = startHealthChecks({ table: state.endpoints, services: this.reloader.table.services, log })
    this.keepHouse()
    this.checkDescriptors()
    if (this.isolation === 'process' && this.settings.state !== 'none') this.offer = this.offerTakeover()
    const { host, adminHost } = this.settings
    this.operator.remind()
    log.info({ host, port: this.port, adminHost, adminPort: this.adminPort }, 'listening')
    service.ready()
  }

  /** SIGHUP: reads the configuration again. */
  reload(by: ReloadResult['by']): Promise<ReloadResult> {
    return this.reloader.reload(by)
  }

  /** Gives a service other endpoints at run time, without another generation: see Reloader.setEndpoints. */
  setEndpoints(service: string, endpoints: readonly EndpointInput[]): Promise<void> {
    return this.reloader.setEndpoints(service, endpoints)
  }

  /** SIGUSR2: begins to replace the workers one by one. '', or why it does not. */
  restart(): string {
    if (this.isolation === 'thread') return 'workers are threads, and those cannot be replaced one by one'
    if (this.leaving) return 'the gateway is draining'
    void this.supervisor.restart()
    return ''
  }

  /**
   * SIGUSR1: whoever has given the log files other names wants them opened anew. Resolves when nothing is written to
   * the former ones any more, with what keeps some of them in use.
   */
  async reopenLogs(): Promise<readonly string[]> {
    const { log, reopenLog } = this.foundation
    const own = reopenLog()
    const problems = await this.supervisor.reopenLogs()
    if (own !== '' && !problems.includes(own)) problems.unshift(own)
    if (problems.length === 0) log.info('log files opened anew')
    else log.error({ problems }, 'log files not opened anew: lines go where they went before')
    return problems
  }

  /** SIGTERM's way out. */
  drain(): void {
    void this.leave(true)
  }

  /** Ends the workers at once, with what they have in flight. */
  kill(): void {
    if (this.isolation === 'process') this.supervisor.killAll()
    // Ended under their uWS, threads abort the process: a core dump for nothing.
    else process.kill(process.pid, 'SIGKILL')
  }

  // What it is made of.

  private prepareConfiguration(load: () => Loaded): Reloader {
    const { loaded, state, log, service } = this.foundation
    try {
      return new Reloader({
        loaded,
        load,
        places: new Places({
          state,
          oldestGeneration: () => this.supervisor.oldestGeneration,
          oldestChange: () => this.supervisor.oldestChange,
          isChangingHands: () => this.offer?.isTaken === true,
        }),
        log,
        onBegin: () => service.reloading(),
        onEnd: () => service.ready(),
        publish: async (generation) => {
          this.operator.apply()
          await this.supervisor.reload(generation)
          // Endpoints may have changed meanwhile.
          this.checks?.update(this.reloader.table.services)
          this.checkDescriptors()
          this.operator.remind()
        },
        publishEndpoints: (message) => {
          this.operator.apply()
          this.checks?.update(this.reloader.table.services)
          if (message.total > this.checkedEndpoints) this.checkDescriptors()
          return this.supervisor.changeEndpoints(message)
        },
      })
    } catch (error) {
      // Workers of an earlier start have records that cannot be taken from them; they leave within moments.
      throw new StartError((error as Error).message)
    }
  }

  private watchCertificates(): CertificateWatch | null {
    const { tls } = this.foundation.loaded.config
    if (tls === undefined) return null
    return new CertificateWatch(tls, this.foundation.log, (changed) =>
      this.supervisor.tell({ type: 'certificates', certificates: changed }),
    )
  }

  private prepareWorkers(): Supervisor {
    const { settings } = this
    const { socket, state, log } = this.foundation
    const kind = workerKind(state.segment, socket.fd, settings.maxHeaderBytes)
    return new Supervisor({
      workers: settings.workers,
      table: state.workers,
      nowUs: () => state.segment.nowUs(),
      log,
      memoryMaxBytes: this.isolation === 'process' ? settings.workerMemoryMaxBytes : 0,
      drainTimeoutMs: settings.drainTimeoutMs,
      spawn: kind.spawn,
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
          generation: this.reloader.generation,
          settings,
          ...kind.shares,
          spec: state.spec,
          isSocketShared: socket.isKept || socket.isFormers,
          port: socket.port,
          certificates: this.certificates?.current ?? null,
        }
      },
      onGone: (owner, slot) => state.workerGone(owner, slot),
    })
  }

  private async openAdmin(port: number): Promise<Admin> {
    const { settings, reloader, certificates, supervisor } = this
    const { isolation, state, log } = this.foundation
    const isLeaving = (): boolean => this.leaving
    const checks = (): HealthChecks | null => this.checks
    const { workers } = settings
    try {
      return await startAdmin({
        host: settings.adminHost,
        names: settings.adminNames,
        port,
        log,
        ...createStatus({ reloader, state, isolation, certificates, supervisor, checks, workers, isLeaving }),
        holdBreaker: (name, as) => this.operator.holdBreaker(name, as),
        drainEndpoint: (service, endpoint, on) => this.operator.drain(service, endpoint, on),
        reload: () => reloader.reload('admin'),
        restart: () => this.restart(),
        reopenLogs: () => this.reopenLogs(),
      })
    } catch (error) {
      throw new StartError((error as Error).message)
    }
  }

  // From the start to the end.

  private async startServing(): Promise<void> {
    const { settings, supervisor } = this
    const { former } = this.foundation
    // A gateway that is taken over has the port until we are sure of ourselves.
    if (former === null) this.admin = await this.openAdmin(settings.adminPort)
    try {
      await supervisor.start()
      if (former !== null) {
        await former.takeAdmin()
        this.operator.takeOver()
        this.admin = await this.openAdmin(settings.adminPort)
        await former.ready()
      }
    } catch (error) {
      // Connections that ours have accepted beside its own are answered yet.
      if (former === null) supervisor.killAll()
      else await supervisor.drain(false)
      this.certificates?.stop()
      await this.admin?.close()
      former?.giveUp()
      throw error instanceof StartError ? error : new StartError((error as Error).message)
    }
    this.adminPort = this.admin!.port
  }

  private keepHouse(): void {
    const { settings, reloader } = this
    const { state, log } = this.foundation
    this.touch = setInterval(() => {
      if (!state.touch())
        log.error(
          { path: state.segment.path },
          'the state file was cut short or overwritten while in use: what it held begins anew, all else goes on',
        )
      // First: whoever is buried may have shut it just before.
      this.openDoor()
      state.buryOrphans()
    }, TOUCH_MS)
    this.openDoor()
    if (settings.watchConfig === 'on') {
      this.unwatch = watchFile(settings.configFile, () => void reloader.reload('file'))
    }
  }

  private checkDescriptors(): void {
    this.checkedEndpoints = this.reloader.table.endpoints.length
    checkDescriptors(this.foundation.log, this.settings, this.checkedEndpoints, this.isolation === 'thread')
  }

  /** Orphans whose socket is ours now shut its door when they leave. */
  private openDoor(): void {
    const { socket, state } = this.foundation
    const isTheirs = socket.isFormers || (socket.isKept && state.orphanCount > 0)
    if (isTheirs && !this.leaving) openDoorAgain(socket)
  }

  private offerTakeover(): Offer {
    const { settings, port } = this
    const { socket, state, log } = this.foundation
    return offerTakeover({
      path: takeoverPath(settings.state),
      host: settings.host,
      port,
      socketIsKept: socket.isKept,
      listenFd: socket.fd!,
      segmentFd: state.segment.fd,
      log,
      releaseAdmin: () => (this.leaving ? null : this.admin!.close()),
      restoreAdmin: () =>
        void this.openAdmin(this.adminPort).then(
          (again) => {
            this.admin = again
          },
          (error: Error) => log.error({ err: error }, 'the admin listener cannot be opened again'),
        ),
      leave: () => void this.leave(false),
    })
  }

  /** @param last nobody else accepts from the listening socket */
  private async leave(last: boolean): Promise<void> {
    if (this.leaving) return
    this.leaving = true
    const { log, service, socket, state } = this.foundation
    service.stopping()
    this.unwatch()
    this.offer?.close()
    const { shutdownDelayMs } = this.settings
    if (shutdownDelayMs > 0 && last) {
      log.info({ shutdownDelayMs }, 'not ready any more, serving on')
      await new Promise((resolve) => setTimeout(resolve, shutdownDelayMs))
    }
    log.info('draining')
    this.certificates?.stop()
    this.checks?.stop()
    closeSocket(socket)
    await this.supervisor.drain(last && !socket.isKept)
    clearInterval(this.touch)
    state.segment.touch()
    await this.admin?.close()
    log.info('ended')
    this.end(0)
  }
}
