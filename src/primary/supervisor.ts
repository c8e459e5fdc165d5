// Starts the workers, watches them, replaces the ones that die or hang, and takes each in turn out of service for a
// rolling restart. It knows processes and threads only as WorkerHandles and nothing of requests.

import type { WorkerTable } from '../state/worker-table.js'
import type { Logger } from '../telemetry/log.js'
import type { EndpointsMessage, FromWorker, Generation, ToWorker } from '../worker/messages.js'

/** A forked process or a thread. */
export interface WorkerHandle {
  /** 0: the system did not let it start; onExit tells why. */
  readonly pid: number
  send(message: ToWorker): void
  /** At once, without a last word. */
  kill(): void
  onMessage(listener: (message: FromWorker) => void): void
  onExit(listener: (how: string) => void): void
}

export interface SupervisorOptions {
  readonly workers: number
  /** With a slot more than there are workers: for the replacement of one that still has requests. */
  readonly table: WorkerTable
  readonly nowUs: () => number
  readonly log: Logger
  /** 0: a worker may have as much as it takes. */
  readonly memoryMaxBytes: number
  readonly drainTimeoutMs: number
  readonly spawn: () => WorkerHandle
  /** Null: not now, all owner indexes are taken. */
  readonly startMessage: (slot: number, pid: number) => (ToWorker & { readonly type: 'start' }) | null
  /** A worker is gone, whatever it held with it: its breaker permits, for one. */
  readonly onGone: (owner: number, slot: number) => void
}

/** A worker that lived shorter than this died young: its replacement waits, twice as long each time. */
const YOUNG_MS = 5000
const BACKOFF_MIN_MS = 100
const BACKOFF_MAX_MS = 5000
/** No heartbeat for this long: the event loop is stuck, and so is every connection on it. */
const HUNG_MS = 2000
/** Starting takes longer than that on a busy machine: modules are loaded and compiled. */
const START_MS = 30_000
/** Starts of one slot that fail before any worker has ever listened, until there is no hope. */
const HOPELESS_STARTS = 3
/** A worker on its way out says good-bye by itself; one that does not is killed this much later. */
const LEAVE_GRACE_MS = 2000
/** Where connections have nowhere else to go, they are not kept waiting for requests that may never come. */
const LAST_IDLE_MS = 1000
/** Of a worker that the system did not let start: it holds nothing. */
const NO_OWNER = -1

/** One process or thread, from its start to its end. */
interface Instance {
  readonly slot: number
  readonly owner: number
  readonly worker: WorkerHandle
  readonly startedMs: number
  listening: boolean
  /** Told to leave. */
  leaving: boolean
  said: string
  ending: boolean
  /** The generation it serves, and the oldest that it has requests of. */
  serves: number
  oldest: number
  /** The last change of endpoints that it has applied. */
  change: number
  /** Which request to open its log files anew it has carried out, and what was wrong then. */
  reopened: number
  problems: readonly string[]
  readonly onEvent: Set<() => void>
}

/** One of the workers there shall be, whoever is it now. */
interface Place {
  instance: Instance | null
  backoffMs: number
  failures: number
  restart: NodeJS.Timeout | null
}

export class Supervisor {
  private readonly options: SupervisorOptions
  private readonly places: Place[]
  /** By slot. */
  private readonly instances: (Instance | null)[]
  private readonly watch: NodeJS.Timeout
  private draining = false
  private reopens = 0
  private everListened = false
  private allListen: (() => void) | null = null
  private hopeless: ((error: Error) => void) | null = null
  private drained: (() => void) | null = null
  private rolling: Promise<boolean> | null = null
  /** One worker alone, for its memory. */
  private recycling: Promise<boolean> | null = null

  constructor(options: SupervisorOptions) {
    this.options = options
    this.places = Array.from({ length: options.workers }, () => ({
      instance: null,
      backoffMs: BACKOFF_MIN_MS,
      failures: 0,
      restart: null,
    }))
    this.instances = Array.from({ length: options.table.slots }, () => null)
    this.watch = setInterval(() => this.look(), HUNG_MS / 8)
  }

  /** Resolves when all listen. Rejects where none can start: the reason is what the last one said. */
  start(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.allListen = resolve
      this.hopeless = reject
      for (const [slot, place] of this.places.entries()) this.fill(place, slot)
    })
  }

  /** Every worker listens, none is on its way out. */
  get ready(): boolean {
    return !this.draining && this.listening === this.places.length
  }

  /** How many of the workers there shall be do listen. */
  get listening(): number {
    return this.places.filter(({ instance }) => instance?.listening).length
  }

  get isDraining(): boolean {
    return this.draining
  }

  /** Those that start later are told with their start message. */
  tell(message: ToWorker): void {
    for (const instance of this.instances) instance?.worker.send(message)
  }

  /** The oldest generation that some worker may still have requests of. */
  get oldestGeneration(): number {
    return Math.min(...this.instances.map((instance) => instance?.oldest ?? Number.POSITIVE_INFINITY))
  }

  /**
   * Resolves when every worker that takes connections serves the generation. Those that start meanwhile start with it.
   */
  async reload(generation: Generation): Promise<void> {
    const asked = this.instances.filter((instance) => instance !== null && !instance.leaving) as Instance[]
    for (const { worker } of asked) worker.send({ type: 'reload', generation })
    await Promise.all(
      asked.map((one) => this.until(one, () => one.serves >= generation.number || one.leaving || this.isGone(one))),
    )
  }

  /** The last change of endpoints that every worker has applied. */
  get oldestChange(): number {
    return Math.min(...this.instances.map((instance) => instance?.change ?? Number.POSITIVE_INFINITY))
  }

  /**
   * Resolves when every worker has applied it: those that leave too, because their requests may still ask for an
   * endpoint.
   */
  async changeEndpoints(message: EndpointsMessage): Promise<void> {
    const asked = this.instances.filter((instance) => instance !== null)
    for (const { worker } of asked) worker.send(message)
    await Promise.all(asked.map((one) => this.until(one, () => one.change >= message.change || this.isGone(one))))
  }

  /**
   * Resolves when no worker writes to its former log files any more, with what was wrong; one that ends meanwhile
   * closes its files.
   */
  async reopenLogs(): Promise<string[]> {
    const number = ++this.reopens
    const asked = this.instances.filter((instance) => instance !== null)
    for (const instance of asked) {
      instance.problems = []
      instance.worker.send({ type: 'reopenLogs', number })
    }
    await Promise.all(asked.map((one) => this.until(one, () => one.reopened >= number || this.isGone(one))))
    return [...new Set(asked.flatMap(({ problems }) => problems))]
  }

  /**
   * Starts another worker for each in turn, and lets the one it replaces finish once the new one listens. False: one
   * could not be replaced, and the rest was left alone. Called again while one is under way it is that one.
   */
  restart(): Promise<boolean> {
    this.rolling ??= (this.recycling ?? Promise.resolve())
      .then(() => this.restartAll())
      .finally(() => {
        this.rolling = null
      })
    return this.rolling
  }

  /**
   * Resolves when the last worker is gone.
   * @param last nobody else accepts from the listening socket
   */
  drain(last: boolean): Promise<void> {
    this.draining = true
    return new Promise((resolve) => {
      this.drained = resolve
      for (const place of this.places) if (place.restart !== null) clearTimeout(place.restart)
      for (const instance of this.instances) if (instance !== null) this.sendAway(instance, last)
      this.leaveWhenEmpty()
    })
  }

  /** Ends every worker now. */
  killAll(): void {
    this.draining = true
    for (const place of this.places) if (place.restart !== null) clearTimeout(place.restart)
    for (const instance of this.instances) instance?.worker.kill()
  }

  private fill(place: Place, slot: number): void {
    place.restart = null
    place.instance = this.spawn(slot)
    if (place.instance === null) place.restart = setTimeout(() => this.fill(place, slot), BACKOFF_MAX_MS)
  }

  /** Null: it cannot be told to start, for want of an owner index. */
  private spawn(slot: number): Instance | null {
    const { options } = this
    const worker = options.spawn()
    const message = worker.pid === 0 ? null : options.startMessage(slot, worker.pid)
    if (message === null && worker.pid !== 0) {
      worker.kill()
      return null
    }
    options.table.started(slot, worker.pid, options.nowUs())
    const instance: Instance = {
      slot,
      owner: message?.owner ?? NO_OWNER,
      worker,
      startedMs: performance.now(),
      listening: false,
      leaving: false,
      said: '',
      ending: false,
      serves: message?.generation.number ?? Number.POSITIVE_INFINITY,
      oldest: message?.generation.number ?? Number.POSITIVE_INFINITY,
      change: message?.generation.change ?? Number.POSITIVE_INFINITY,
      reopened: this.reopens,
      problems: [],
      onEvent: new Set(),
    }
    this.instances[slot] = instance
    worker.onMessage((received) => this.receive(instance, received))
    worker.onExit((how) => this.gone(instance, how))
    if (message !== null) worker.send(message)
    return instance
  }

  private receive(instance: Instance, message: FromWorker): void {
    if (message.type === 'failed') instance.said = message.message
    if (message.type === 'serves') {
      instance.serves = message.generation
      instance.oldest = message.oldest
    }
    if (message.type === 'endpointsChanged') instance.change = message.change
    if (message.type === 'reopened') {
      instance.reopened = message.number
      instance.problems = message.problems
    }
    if (message.type === 'listening') {
      instance.listening = true
      this.everListened = true
      const place = this.places.find((one) => one.instance === instance)
      if (place !== undefined) place.failures = 0
      const { port, uwsVersion } = message
      this.options.log.info({ slot: instance.slot, port, uWebSockets: uwsVersion }, 'worker listens')
      if (this.ready) this.allListen?.()
    }
    this.wake(instance)
  }

  private gone(instance: Instance, how: string): void {
    const { slot, owner, startedMs } = instance
    const { log } = this.options
    this.instances[slot] = null
    this.options.table.vacate(slot)
    if (owner !== NO_OWNER) this.options.onGone(owner, slot)
    this.wake(instance)
    if (this.draining) return this.leaveWhenEmpty()
    const place = this.places.find((one) => one.instance === instance)
    // It was replaced, or was to replace another.
    if (place === undefined) {
      if (instance.leaving) log.info({ slot, pid: instance.worker.pid }, 'worker left')
      return
    }
    place.instance = null
    const livedMs = performance.now() - startedMs
    place.failures++
    if (livedMs > YOUNG_MS) place.backoffMs = BACKOFF_MIN_MS
    const reason = instance.said === '' ? how : `${instance.said} (${how})`
    if (!this.everListened && place.failures >= HOPELESS_STARTS) {
      return this.hopeless?.(new Error(`no worker can start: ${reason}`))
    }
    // One that served for a while is replaced at once.
    const restartInMs = livedMs > YOUNG_MS ? 0 : place.backoffMs
    log.error({ slot, reason, restartInMs }, 'worker died')
    place.restart = setTimeout(() => this.fill(place, slot), restartInMs)
    if (restartInMs > 0) place.backoffMs = Math.min(place.backoffMs * 2, BACKOFF_MAX_MS)
  }

  // Rolling restarts.

  private async restartAll(): Promise<boolean> {
    this.options.log.info({ workers: this.places.length }, 'restarting workers one by one')
    for (const place of this.places) if (!(await this.replace(place))) return false
    this.options.log.info('all workers were restarted')
    return true
  }

  private async replace(place: Place): Promise<boolean> {
    const { log, drainTimeoutMs } = this.options
    const old = place.instance
    // One that has died is being replaced anyway.
    if (old === null || this.draining) return !this.draining
    const slot = this.instances.indexOf(null)
    const next = slot < 0 ? null : this.spawn(slot)
    if (next !== null) await this.until(next, () => next.listening || this.isGone(next))
    if (this.draining) return false
    if (next === null || this.isGone(next)) {
      log.error({ slot: old.slot, reason: next?.said ?? 'no place for another' }, 'worker cannot be replaced: it stays')
      return false
    }
    // The one it replaces may have died meanwhile, and its successor be about to start, or be here.
    if (place.restart !== null) clearTimeout(place.restart)
    place.restart = null
    const former = place.instance
    place.instance = next
    log.info({ slot: old.slot, by: next.slot, pid: next.worker.pid }, 'worker replaced')
    if (former !== null && !this.isGone(former)) {
      this.sendAway(former, false)
      const late = setTimeout(() => former.worker.kill(), drainTimeoutMs + LEAVE_GRACE_MS)
      await this.until(former, () => this.isGone(former))
      clearTimeout(late)
    }
    return !this.draining
  }

  private sendAway(instance: Instance, last: boolean): void {
    instance.leaving = true
    instance.listening = false
    // uWS closes a connection on which nothing happens for 10 s by itself; connections may as well come back here until
    // then.
    const idleMs = last ? LAST_IDLE_MS : this.options.drainTimeoutMs
    instance.worker.send({ type: 'drain', last, idleMs })
    this.wake(instance)
  }

  // Watching.

  private look(): void {
    this.findHung()
    const { memoryMaxBytes, table, log } = this.options
    if (memoryMaxBytes === 0 || this.rolling !== null || this.recycling !== null || this.draining) return
    const over = this.places.find(
      ({ instance }) => instance?.listening && table.memoryBytes(instance.slot) > memoryMaxBytes,
    )
    if (over === undefined) return
    const { slot, worker, startedMs } = over.instance as Instance
    // One that has so much as soon as it serves would be replaced for ever.
    if (performance.now() - startedMs < YOUNG_MS) return
    log.warn({ slot, pid: worker.pid, memoryBytes: table.memoryBytes(slot) }, 'worker passes its memory ceiling')
    this.recycling = this.replace(over).finally(() => {
      this.recycling = null
    })
  }

  private findHung(): void {
    const { table, log, nowUs } = this.options
    for (const instance of this.instances) {
      if (instance === null || instance.ending) continue
      const { slot, worker } = instance
      const silentMs = (nowUs() - table.heartbeatUs(slot)) / 1000
      if (silentMs < (instance.listening || instance.leaving ? HUNG_MS : START_MS)) continue
      log.error({ slot, pid: worker.pid, silentMs: Math.round(silentMs) }, 'worker hangs: ending it')
      instance.said = `no heartbeat for ${Math.round(silentMs)} ms`
      instance.ending = true
      worker.kill()
    }
  }

  private isGone(instance: Instance): boolean {
    return this.instances[instance.slot] !== instance
  }

  private until(instance: Instance, holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve()
    return new Promise((resolve) => {
      const look = (): void => {
        if (!holds()) return
        instance.onEvent.delete(look)
        resolve()
      }
      instance.onEvent.add(look)
    })
  }

  private wake(instance: Instance): void {
    for (const look of [...instance.onEvent]) look()
  }

  private leaveWhenEmpty(): void {
    if (this.instances.some((instance) => instance !== null)) return
    clearInterval(this.watch)
    this.drained?.()
  }
}
