// Sends one request through a Dispatcher and says how it went, in terms both upstream clients must agree on: what of an
// answer came, and where it failed, which outcome failure.ts makes of that.
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import { type UpstreamFailure, upstreamFailure } from '../../src/upstream/failure.js'

export interface Verdict {
  interim: number[]
  status: number
  phrase: string
  headers: IncomingHttpHeaders
  /** A character a byte. */
  body: string
  trailers: IncomingHttpHeaders | null
  /** The outcome failure.ts makes of it, and how far it had come; null where the answer is complete. */
  failure: string | null
}

export interface Sent {
  readonly controller: Dispatcher.DispatchController | null
  readonly started: Promise<void>
  readonly verdict: Promise<Verdict>
  /** The error itself, once the verdict is there. */
  readonly error: Error | null
}

export type RequestOptions = Partial<Dispatcher.DispatchOptions>

class Recorder implements Dispatcher.DispatchHandler, Sent {
  controller: Dispatcher.DispatchController | null = null
  error: Error | null = null
  readonly started: Promise<void>
  readonly verdict: Promise<Verdict>
  private readonly seen: Verdict = {
    interim: [],
    status: 0,
    phrase: '',
    headers: {},
    body: '',
    trailers: null,
    failure: null,
  }
  private settleStart!: () => void
  private settle!: (verdict: Verdict) => void
  private ends = 0

  constructor(
    private readonly onData: ((chunk: Buffer, controller: Dispatcher.DispatchController) => void) | undefined,
  ) {
    this.started = new Promise((resolve) => {
      this.settleStart = resolve
    })
    this.verdict = new Promise((resolve) => {
      this.settle = resolve
    })
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders, phrase = ''): void {
    if (status < 200) return void this.seen.interim.push(status)
    this.seen.status = status
    this.seen.phrase = phrase
    this.seen.headers = { ...headers }
    this.settleStart()
  }

  onResponseData(controller: Dispatcher.DispatchController, chunk: Buffer): void {
    // Copied at once: a chunk is only lent.
    this.seen.body += chunk.toString('latin1')
    this.onData?.(chunk, controller)
  }

  onResponseEnd(_: Dispatcher.DispatchController, trailers: IncomingHttpHeaders): void {
    this.seen.trailers = { ...trailers }
    this.finish()
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    this.error = error
    this.seen.failure = describe(upstreamFailure(error), this.seen.status > 0)
    this.finish()
  }

  private finish(): void {
    // A handler that is told twice would conclude an exchange twice.
    if (++this.ends > 1) this.seen.failure = `ended ${this.ends} times`
    this.settleStart()
    this.settle(this.seen)
  }
}

/** Once the answer has begun it does not matter how it came to be cut: that is told by the status. */
function describe({ rejection, sent }: UpstreamFailure, begun: boolean): string {
  if (begun) return rejection.code
  if (sent?.written === false) return `${rejection.code}, not reached`
  return rejection.reason === 'connection lost' ? `${rejection.code}, lost` : rejection.code
}

export function send(
  dispatcher: Dispatcher,
  options: RequestOptions = {},
  onData?: (chunk: Buffer, controller: Dispatcher.DispatchController) => void,
): Sent {
  const recorder = new Recorder(onData)
  dispatcher.dispatch({ method: 'GET', path: '/', headers: [], body: null, reset: false, ...options }, recorder)
  return recorder
}

export function ask(dispatcher: Dispatcher, options: RequestOptions = {}): Promise<Verdict> {
  return send(dispatcher, options).verdict
}
