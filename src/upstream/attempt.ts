// One try at one endpoint: gives a request to the endpoint's client, and the response to a sink. Runs per request. It
// knows no exchange, and retries.ts decides whether another try follows. An attempt holds the endpoint's count of
// requests in flight and the breaker's permit. It gives each back once, with the first of complete(), abort(),
// discard() and a failure; after that it calls its sink no more. The permit may go on to the next attempt, so that the
// breaker judges what is left after retries.
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import { type Breaker, OUTCOME } from './breaker.js'
import type { EndpointState } from './cluster/endpoint-state.js'
import { DeadlineError, isMistake, type UpstreamFailure, upstreamFailure } from './failure.js'
import { errors } from './undici.js'
import type { UpstreamRequest } from './upstream-request.js'

/** So much of a response that nobody wants is read, so that its connection stays usable, … */
const MOST_DISCARDED_BYTES = 65_536
/** … and for so long. */
const DISCARD_MS = 1000
const discarded = new Error('the response was not wanted')

/** Called in this order. A chunk is valid until onData returns. The fields are shared: read only. */
export interface AttemptSink {
  /** The client sends the request once more by itself. */
  onSentAgain(): void
  /** Of the final response: interim responses are dropped. */
  onHead(status: number, headers: IncomingHttpHeaders, phrase: string): void
  onData(chunk: Buffer): void
  /** The response has ended. The sink calls complete(). */
  onEnd(): void
  /** This attempt has failed: the endpoint of its successor(), where one is to follow (retries.ts), or null. */
  retryAt(failure: UpstreamFailure): EndpointState | null
  /** The attempt is over. @param next what retryAt has returned */
  onFailure(failure: UpstreamFailure, next: EndpointState | null): void
  /** One of the calls above has thrown, or the endpoint's client has. The sink calls abort(). */
  onException(error: unknown): void
}

export class Attempt implements Dispatcher.DispatchHandler {
  /** Null where the service has none, and once another attempt has the permit. */
  private breaker: Breaker | null
  private permit: number
  private readonly nowUs: () => number
  private sink: AttemptSink | null = null
  /** Null until the request is given to its client. */
  private endpoint: EndpointState | null = null
  private controller: Dispatcher.DispatchController | null = null
  /** Why it was aborted. undici gives a controller only when it writes the request, and is told then. */
  private reason: Error | null = null
  /** Of the final response; 0 before it has come. */
  private status = 0
  private startUs = 0
  /** The whole request was there, and the head of its response has not come. */
  private waits = false
  private isUpload = false
  private over = false
  /** The rest of the response is read and dropped until then. */
  private discardTimer: NodeJS.Timeout | null = null
  private discardedBytes = 0

  /** Made by Cluster.attempt. @param permit of the breaker, where there is one */
  constructor(breaker: Breaker | null, permit: number, nowUs: () => number) {
    this.breaker = breaker
    this.permit = permit
    this.nowUs = nowUs
  }

  /** The endpoint's client has its request. */
  get isRunning(): boolean {
    return this.endpoint !== null && !this.over
  }

  /** Its body is a stream, which no other attempt can have. */
  get streams(): boolean {
    return this.isUpload
  }

  start(request: UpstreamRequest, endpoint: EndpointState, sink: AttemptSink): void {
    this.sink = sink
    // First: an exception must not leave it with an endpoint that does not count it.
    this.startUs = this.nowUs()
    this.endpoint = endpoint
    this.isUpload = request.body !== null && !Buffer.isBuffer(request.body)
    this.waits = !this.isUpload
    endpoint.begin(this.waits)
    endpoint.client.dispatch(request as Dispatcher.DispatchOptions, this)
  }

  /** The response is complete. @param spentUs the service's own part of the time that the attempt took */
  complete(spentUs: number, nowUs: number): void {
    if (this.over) return
    const outcome = this.breaker === null ? OUTCOME.ok : this.breaker.outcomeOf(this.status, spentUs)
    this.giveBack(outcome, this.endpoint!.isFailure(this.status), nowUs)
  }

  /** The breaker counts a DeadlineError as a failure of the service, and no other reason. */
  abort(reason: Error): void {
    if (this.over) return
    this.reason = reason
    const failed = reason instanceof DeadlineError
    this.giveBack(failed ? OUTCOME.failed : OUTCOME.ignored, failed)
    this.controller?.abort(reason)
  }

  /** An attempt that is to follow this one, and has the breaker's permit from now on: this one reports nothing. */
  successor(): Attempt {
    const next = this.companion()
    next.inherit(this)
    return next
  }

  /** An attempt beside this one, which may inherit() the permit when it wins. */
  companion(): Attempt {
    return new Attempt(null, -1, this.nowUs)
  }

  /** Takes the permit of another attempt, if that has one. */
  inherit(from: Attempt): void {
    if (from.breaker === null) return
    this.breaker = from.breaker
    this.permit = from.permit
    from.breaker = null
  }

  /** Within onHead: another attempt follows, and the rest of this response is for nobody. */
  discard(declaredBytes: number): void {
    if (this.over) return
    this.giveBack(OUTCOME.ignored, this.endpoint!.isFailure(this.status))
    // A connection in the middle of an upload is of no more use.
    if (this.isUpload || declaredBytes > MOST_DISCARDED_BYTES) return this.controller!.abort(discarded)
    this.discardTimer = setTimeout(() => this.controller!.abort(discarded), DISCARD_MS).unref()
  }

  private stopDiscarding(): void {
    if (this.discardTimer !== null) clearTimeout(this.discardTimer)
    this.discardTimer = null
  }

  private discardChunk(chunk: Buffer): void {
    this.discardedBytes += chunk.length
    if (this.discardedBytes > MOST_DISCARDED_BYTES) this.controller!.abort(discarded)
  }

  /** It calls this sink from now on. */
  tell(sink: AttemptSink): void {
    this.sink = sink
  }

  pause(): void {
    this.controller!.pause()
  }

  resume(): void {
    this.controller!.resume()
  }

  /** @param failed the endpoint is to blame; the outcome is what the breaker of its service counts */
  private giveBack(outcome: number, failed: boolean, nowUs: number | null = null): void {
    this.over = true
    this.endpoint?.end(this.startUs, failed, this.waits)
    this.breaker?.report(this.permit, outcome, nowUs ?? this.nowUs())
  }

  // From the endpoint's client. An exception of the sink must not reach it: it would take that for a failure of its
  // own.

  /** Called once more each time that the client sends the request again. */
  onRequestStart(controller: Dispatcher.DispatchController): void {
    try {
      const isFirst = this.controller === null
      this.controller = controller
      if (this.reason !== null) controller.abort(this.reason)
      else if (!isFirst && !this.over) this.sink!.onSentAgain()
    } catch (error) {
      this.sink!.onException(error)
    }
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders, phrase = ''): void {
    if (this.over || status < 200) return
    this.status = status
    try {
      if (this.waits) {
        const latencyUs = this.nowUs() - this.startUs
        this.waits = false
        this.endpoint!.answered(latencyUs)
      }
      this.sink!.onHead(status, headers, phrase)
    } catch (error) {
      this.sink!.onException(error)
    }
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.over) {
      if (this.discardTimer !== null) this.discardChunk(chunk)
      return
    }
    try {
      this.sink!.onData(chunk)
    } catch (error) {
      this.sink!.onException(error)
    }
  }

  onResponseEnd(): void {
    if (this.over) return this.stopDiscarding()
    try {
      this.sink!.onEnd()
    } catch (error) {
      this.sink!.onException(error)
    }
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    if (this.over) return this.stopDiscarding()
    // undici misses the body that the length of a 304 speaks of; there is none to come (RFC 9110, 15.4.5).
    if (this.status === 304 && error instanceof errors.ResponseContentLengthMismatchError) return this.onResponseEnd()
    try {
      if (isMistake(error)) throw error
      const failure = upstreamFailure(error)
      // Where another attempt is to follow, that has the permit.
      const next = this.sink!.retryAt(failure)
      this.giveBack(failure.upstreamAtFault ? OUTCOME.failed : OUTCOME.ignored, failure.upstreamAtFault)
      this.sink!.onFailure(failure, next)
    } catch (exception) {
      this.sink!.onException(exception)
    }
  }
}
