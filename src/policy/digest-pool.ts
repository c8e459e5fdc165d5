// Signature checks that are worth a thread: long bodies. The only user of piscina. A body is handed over and back without being copied.
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import type { Piscina } from 'piscina'
import type { Consumer } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { ContentDigestTask, DigestAnswer, DigestTask, XmTask } from './digest-worker.js'

const require = createRequire(import.meta.url)

type BodyTask = (Omit<XmTask, 'body'> | Omit<ContentDigestTask, 'body'>) & { readonly body: Buffer | null }

const poolFull = new Rejection('overloaded', 'signature queue full')

/** Checks waiting per thread before the gateway says it is overloaded: about 4 ms of hashing 64 KiB bodies, 64 MiB of 1 MiB ones. */
const QUEUE_PER_THREAD = 64

export class DigestPool {
  private readonly consumers: readonly Consumer[]
  private readonly threads: number
  private piscina: Piscina<DigestTask, DigestAnswer> | null = null
  private waiting = 0

  /** Threads start with the first check, so that a gateway that never needs them has none. */
  constructor(consumers: readonly Consumer[], threads: number) {
    this.consumers = consumers
    this.threads = threads
  }

  /** `done` gets `unfit` for what does not fit, and is not called when the client left meanwhile. Until then exchange.body is nobody's. */
  check(
    exchange: Exchange,
    task: BodyTask,
    unfit: Rejection,
    done: (exchange: Exchange, rejection: Rejection | null) => void,
  ): void {
    const pending = this.verify(task)
    if (pending === null) return done(exchange, poolFull)
    pending.then(
      (answer) => {
        if (exchange.concluded) return
        exchange.body = answer.body
        done(exchange, answer.fits ? null : unfit)
      },
      (error: Error) => {
        if (!exchange.concluded) exchange.crash(error)
      },
    )
  }

  /** Null when the queue is full. The request's body must not be touched until the answer brings it back. */
  verify(request: BodyTask): Promise<{ fits: boolean; body: Buffer | null }> | null {
    if (this.waiting >= this.threads * QUEUE_PER_THREAD) return null
    this.piscina ??= this.start()
    this.waiting++
    const { body, ...head } = request
    const memory = body === null ? null : ownMemory(body)
    return this.piscina
      .run({ ...head, body: memory } as DigestTask, memory === null ? {} : { transferList: [memory] })
      .then((answer) => ({ fits: answer.fits, body: answer.body === null ? null : Buffer.from(answer.body) }))
      .finally(() => {
        this.waiting--
      })
  }

  async close(): Promise<void> {
    await this.piscina?.destroy()
  }

  private start(): Piscina<DigestTask, DigestAnswer> {
    // Loaded with the first check: it brings 7 MiB, and most gateways see no long signed bodies.
    const pool = require('piscina') as typeof import('piscina')
    const piscina = new pool.Piscina<DigestTask, DigestAnswer>({
      filename: fileURLToPath(new URL('./digest-worker.js', import.meta.url)),
      workerData: this.consumers,
      minThreads: this.threads,
      maxThreads: this.threads,
      // Measured: with `sync` a task costs six times as much when many are under way, as the thread sleeps between them.
      atomics: 'async',
      concurrentTasksPerWorker: 16,
      // Threads have nothing to do with the environment, and it may hold secrets.
      env: {},
    })
    // A thread that cannot start, for want of descriptors say; the next check tries again.
    piscina.on('error', () => {})
    return piscina
  }
}

/** A body that is a slice of a larger buffer (Node's pool) cannot be handed over; those are short. */
function ownMemory(body: Buffer): ArrayBuffer {
  const memory = body.buffer as ArrayBuffer
  return body.byteLength === memory.byteLength
    ? memory
    : memory.slice(body.byteOffset, body.byteOffset + body.byteLength)
}
