// Gathers lines and hands them to sonic-boom in batches, off the request's way. If the destination lags, a line is
// dropped and counted; no request waits for it. Errors of the destination leave this file only as one call of
// `onTrouble`. `write` runs per request.
import { close } from 'node:fs'
import sonic from 'sonic-boom'
import type { Sink } from './sink.js'

export interface LineWriterOptions {
  /**
   * Most bytes held for a lagging destination; beyond them lines are dropped. Default 8 MiB: about a second's lines.
   */
  readonly maxQueuedBytes?: number
  /** Called once when writes begin to fail, and with null when one succeeds again. A full pipe is not a failure. */
  readonly onTrouble?: (error: Error | null) => void
}

/** Longest time that a line waits for its batch to fill. */
const FLUSH_INTERVAL_MS = 250
/** Pause before a full pipe is tried again. A pipe holds 64 KiB, so a reader of 12 MB/s loses nothing. */
const FULL_RETRY_MS = 5
/** Longest time that an exit waits for a lagging reader. */
const FLUSH_DEADLINE_MS = 1000

/** sonic-boom's types omit its descriptor, which it reads anew for each write. */
type Boom = sonic.SonicBoom & { fd: number }

export class LineWriter {
  /** Lines lost since the start. */
  dropped = 0
  private pending = ''
  /** Bytes handed to sonic-boom and not yet written. Exact, since a character is a byte. */
  private queuedBytes = 0
  private failing = false
  private closed = false
  private retry: NodeJS.Timeout | null = null
  /** sonic-boom has an asynchronous write under way. */
  private writing = false
  /** Callbacks that wait for the end of that write, which goes to the former destination. */
  private moved: (() => void)[] = []
  private readonly boom: Boom
  private readonly timer: NodeJS.Timeout
  private readonly waiting: (() => void)[] = []
  private readonly sink: Sink
  private readonly maxWriteBytes: number
  private readonly maxQueuedBytes: number
  private readonly onTrouble: (error: Error | null) => void

  constructor(sink: Sink, { maxQueuedBytes = 8 << 20, onTrouble = () => {} }: LineWriterOptions = {}) {
    this.sink = sink
    this.maxWriteBytes = sink.maxWriteBytes
    this.maxQueuedBytes = Math.max(maxQueuedBytes, sink.maxWriteBytes)
    this.onTrouble = onTrouble
    this.boom = new sonic.SonicBoom({
      fd: sink.fd,
      sync: sink.nonBlocking,
      maxWrite: sink.maxWriteBytes,
      // A Buffer: with a string, sonic-boom would count the bytes again after every write. Its types only know strings.
      contentMode: 'buffer',
      // With 0, its flush would do nothing, and a failed write would wait for the next line.
      minLength: 1,
      // By itself it tries a full pipe again after 100 ms, and in synchronous mode sleeps for that time.
      retryEAGAIN: () => false,
    }) as Boom
    this.boom.on('write', (bytes: number) => this.onWritten(bytes))
    this.boom.on('error', (error: NodeJS.ErrnoException) => this.onError(error))
    this.timer = setInterval(() => this.hand(), FLUSH_INTERVAL_MS).unref()
  }

  /** @param line ASCII, ends with a line feed, at most the sink's maxWriteBytes long */
  write(line: string): void {
    if (this.pending.length + line.length > this.maxWriteBytes) this.hand()
    this.pending += line
  }

  /** Calls back when all lines so far are written, or after a second. */
  flush(done: () => void): void {
    this.hand()
    // A failing destination does not recover while an exit waits for it.
    if (this.queuedBytes === 0 || this.failing) {
      done()
      return
    }
    const finish = () => {
      clearTimeout(deadline)
      const i = this.waiting.indexOf(finish)
      if (i >= 0) this.waiting.splice(i, 1)
      done()
    }
    const deadline = setTimeout(finish, FLUSH_DEADLINE_MS)
    this.waiting.push(finish)
  }

  /**
   * From now on, lines go to another file, including those that the former one did not take; the former one is closed.
   * Calls back when nothing is written to it any more.
   * @param sink of the same kind as the former one; this object owns it from here on
   * @throws Error if the kinds differ
   */
  moveTo(sink: Sink, done: () => void): void {
    if (sink.maxWriteBytes !== this.sink.maxWriteBytes || sink.nonBlocking !== this.sink.nonBlocking) {
      close(sink.fd, () => {})
      throw new Error('it is another kind of file than the former one')
    }
    const finish = (): void => close(former, () => done())
    if (this.closed) return void close(sink.fd, () => done())
    const former = this.boom.fd
    this.boom.fd = sink.fd
    if (this.writing) this.moved.push(finish)
    else finish()
    // Tries again what the former destination refused.
    this.hand()
  }

  /** Flushes, then closes the descriptor (never 1 or 2). Lines written later count as dropped. */
  close(done: () => void): void {
    this.flush(() => {
      clearInterval(this.timer)
      if (this.retry !== null) clearTimeout(this.retry)
      this.closed = true
      this.boom.once('close', done)
      this.boom.destroy()
    })
  }

  private hand(): void {
    const batch = this.pending
    if (batch === '') {
      if (this.failing) this.tryAgain()
      return
    }
    this.pending = ''
    if (this.closed || this.queuedBytes + batch.length > this.maxQueuedBytes) {
      for (let i = batch.indexOf('\n'); i >= 0; i = batch.indexOf('\n', i + 1)) this.dropped++
      if (this.closed) return
      // sonic-boom must try again, or nobody would notice that the destination recovered.
      this.tryAgain()
      return
    }
    this.queuedBytes += batch.length
    this.writing = !this.sink.nonBlocking
    this.boom.write(Buffer.from(batch, 'latin1') as unknown as string)
  }

  private tryAgain(): void {
    this.writing = !this.sink.nonBlocking
    this.boom.flush()
  }

  private onWritten(bytes: number): void {
    this.queuedBytes -= bytes
    // sonic-boom goes on with the queue, in the next file if there is one.
    this.writing = this.queuedBytes > 0 && !this.sink.nonBlocking
    for (const finish of this.moved.splice(0)) finish()
    if (this.failing && bytes > 0) {
      this.failing = false
      this.onTrouble(null)
    }
    if (this.queuedBytes === 0) for (const finish of this.waiting.slice()) finish()
  }

  private onError(error: NodeJS.ErrnoException): void {
    this.writing = false
    for (const finish of this.moved.splice(0)) finish()
    if (error.code === 'EAGAIN' || error.code === 'EBUSY') {
      // sonic-boom kept the batch. The timer is not unref'd: an exit waits in flush, which has its own deadline.
      this.retry ??= setTimeout(() => {
        this.retry = null
        this.tryAgain()
      }, FULL_RETRY_MS)
      return
    }
    if (!this.failing) {
      this.failing = true
      this.onTrouble(error)
    }
    for (const finish of this.waiting.slice()) finish()
  }
}
