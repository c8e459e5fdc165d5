// Checks the signatures of long bodies in threads. The only user of piscina, with digest-worker.ts. Bodies are
// transferred, not copied.
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

/**
 * Checks that may wait per thread before the gateway responds 503: about 4 ms of hashing 64 KiB bodies, 64 MiB of 1 MiB
 * ones.
 */
const QUEUE_PER_THREAD = 64

export class DigestPool {
  private readonly consumers: readonly Consumer[]
  private readonly threads: number
  private piscina: Piscina<DigestTask, DigestAnswer> | null = null
  private waiting = 0

  /** The threads start with the first check, so a gateway that never needs them has none. */
  constructor(consumers: readonly Consumer[], threads: number) {
    this.consumers = consumers
    this.threads = threads
  }

  /**
   * Calls `done` with `unfit` if the check fails; does not call it if the client left. Meanwhile nothing may touch
   * exchange.body.
   */
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

  /** Returns null if the queue is full. Nothing may touch the request's body until the result brings it back. */
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
    // Loaded with the first check: it takes 7 MiB, and most gateways see no long signed bodies.
    const pool = require('piscina') as typeof import('piscina')
    const piscina = new pool.Piscina<DigestTask, DigestAnswer>({
      filename: fileURLToPath(new URL('./digest-worker.js', import.meta.url)),
      workerData: this.consumers,
      minThreads: this.threads,
      maxThreads: this.threads,
      // Measured: with `sync`, a task costs six times as much under load, because the thread sleeps between tasks.
      atomics: 'async',
      concurrentTasksPerWorker: 16,
      // The threads do not need the environment, and it may hold secrets.
      env: {},
    })
    // A thread may fail to start, for lack of descriptors for example; the next check tries again.
    piscina.on('error', () => {})
    return piscina
  }
}

/** A slice of a larger buffer (Node's pool) cannot be transferred and is copied; such slices are short. */
function ownMemory(body: Buffer): ArrayBuffer {
  const memory = body.buffer as ArrayBuffer
  return body.byteLength === memory.byteLength
    ? memory
    : memory.slice(body.byteOffset, body.byteOffset + body.byteLength)
}
