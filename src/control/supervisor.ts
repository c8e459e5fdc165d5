// Starts the workers, watches them and replaces the ones that die or hang. It knows processes and threads only as WorkerHandles and
// nothing of requests.

import type { WorkerTable } from '../state/counters.js'
import type { Logger } from '../telemetry/log.js'
import type { FromWorker, ToWorker } from './messages.js'

/** A forked process or a thread. */
export interface WorkerHandle {
  readonly pid: number
  send(message: ToWorker): void
  /** At once, without a last word. */
  kill(): void
  onMessage(listener: (message: FromWorker) => void): void
  onExit(listener: (how: string) => void): void
}

export interface SupervisorOptions {
  readonly workers: number
  readonly table: WorkerTable
  readonly nowUs: () => number
  readonly log: Logger
  readonly spawn: (slot: number) => WorkerHandle
  readonly startMessage: (slot: number) => ToWorker
  readonly onListening: (slot: number, port: number, uwsVersion: string) => void
  /** A worker is gone, whatever it held with it: its breaker permits, for one. */
  readonly onGone: (slot: number) => void
  /** No worker can start; the reason is what the last one said. */
  readonly onHopeless: (reason: string) => void
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

interface Slot {
  worker: WorkerHandle | null
  listening: boolean
  startedMs: number
  backoffMs: number
  failures: number
  restart: NodeJS.Timeout | null
  said: string
  ending: boolean
}

export class Supervisor {
  private readonly options: SupervisorOptions
  private readonly slots: Slot[]
  private readonly watch: NodeJS.Timeout
  private draining = false
  private everListened = false
  private drained: (() => void) | null = null

  constructor(options: SupervisorOptions) {
    this.options = options
    this.slots = Array.from({ length: options.workers }, () => ({
      worker: null,
      listening: false,
      startedMs: 0,
      backoffMs: BACKOFF_MIN_MS,
      failures: 0,
      restart: null,
      said: '',
      ending: false,
    }))
    this.watch = setInterval(() => this.findHung(), HUNG_MS / 8)
  }

  start(): void {
    for (let slot = 0; slot < this.slots.length; slot++) this.spawn(slot)
  }

  /** Every worker listens, none is on its way out. */
  get ready(): boolean {
    return !this.draining && this.slots.every((slot) => slot.listening)
  }

  get isDraining(): boolean {
    return this.draining
  }

  /** Those that start later are told with their start message. */
  tell(message: ToWorker): void {
    for (const slot of this.slots) slot.worker?.send(message)
  }

  /** Resolves when the last worker is gone. */
  drain(): Promise<void> {
    this.draining = true
    return new Promise((resolve) => {
      this.drained = resolve
      for (const slot of this.slots) {
        if (slot.restart !== null) clearTimeout(slot.restart)
        slot.worker?.send({ type: 'drain' })
      }
      this.leaveWhenEmpty()
    })
  }

  /** Ends every worker now. */
  killAll(): void {
    this.draining = true
    for (const slot of this.slots) {
      if (slot.restart !== null) clearTimeout(slot.restart)
      slot.worker?.kill()
    }
  }

  private spawn(index: number): void {
    const slot = this.slots[index]!
    const { options } = this
    slot.restart = null
    slot.startedMs = performance.now()
    slot.said = ''
    slot.ending = false
    const worker = options.spawn(index)
    slot.worker = worker
    options.table.started(index, worker.pid, options.nowUs())
    worker.onMessage((message) => this.receive(index, message))
    worker.onExit((how) => this.gone(index, how))
    worker.send(options.startMessage(index))
  }

  private receive(index: number, message: FromWorker): void {
    const slot = this.slots[index]!
    if (message.type === 'failed') slot.said = message.message
    if (message.type !== 'listening') return
    slot.listening = true
    slot.failures = 0
    this.everListened = true
    this.options.onListening(index, message.port, message.uwsVersion)
  }

  private gone(index: number, how: string): void {
    const slot = this.slots[index]!
    const { log } = this.options
    slot.worker = null
    slot.listening = false
    this.options.table.vacate(index)
    this.options.onGone(index)
    if (this.draining) return this.leaveWhenEmpty()
    const livedMs = performance.now() - slot.startedMs
    slot.failures++
    if (livedMs > YOUNG_MS) slot.backoffMs = BACKOFF_MIN_MS
    const reason = slot.said === '' ? how : `${slot.said} (${how})`
    if (!this.everListened && slot.failures >= HOPELESS_STARTS) return this.options.onHopeless(reason)
    // One that served for a while is replaced at once.
    const restartInMs = livedMs > YOUNG_MS ? 0 : slot.backoffMs
    log.error({ slot: index, reason, restartInMs }, 'worker died')
    slot.restart = setTimeout(() => this.spawn(index), restartInMs)
    if (restartInMs > 0) slot.backoffMs = Math.min(slot.backoffMs * 2, BACKOFF_MAX_MS)
  }

  private findHung(): void {
    const { table, log, nowUs } = this.options
    for (const [index, slot] of this.slots.entries()) {
      if (slot.worker === null || slot.ending) continue
      const silentMs = (nowUs() - table.heartbeatUs(index)) / 1000
      if (silentMs < (slot.listening ? HUNG_MS : START_MS)) continue
      log.error({ slot: index, pid: slot.worker.pid, silentMs: Math.round(silentMs) }, 'worker hangs: ending it')
      slot.said = `no heartbeat for ${Math.round(silentMs)} ms`
      slot.ending = true
      slot.worker.kill()
    }
  }

  private leaveWhenEmpty(): void {
    if (this.slots.some((slot) => slot.worker !== null)) return
    clearInterval(this.watch)
    this.drained?.()
  }
}
