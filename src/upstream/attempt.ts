// One try at one endpoint: gives a request to the endpoint's client, and the response to a sink. Runs per request. It
// knows no exchange, and retries.ts decides whether another try follows. An attempt holds the endpoint's count of
// requests in flight and the breaker's permit. It gives each back once, with the first of complete(), abort() and a
// failure; after that it calls its sink no more.
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import { type Breaker, OUTCOME } from './breaker.js'
import type { EndpointState } from './cluster/endpoint-state.js'
import { DeadlineError, isMistake, type UpstreamFailure, upstreamFailure } from './failure.js'
import { errors } from './undici.js'
import type { UpstreamRequest } from './upstream-request.js'

/** Called in this order. A chunk is valid until onData returns. The fields are shared: read only. */
export interface AttemptSink {
  /** The client sends the request once more by itself. */
  onSentAgain(): void
  /** Of the final response: interim responses are dropped. */
  onHead(status: number, headers: IncomingHttpHeaders, phrase: string): void
  onData(chunk: Buffer): void
  /** The response has ended. The sink calls complete(). */
  onEnd(): void
  /** This attempt has failed: the endpoint of the one that is to follow it (retries.ts), or null. */
  retryAt(failure: UpstreamFailure): EndpointState | null
  /** The attempt is over. @param next what retryAt has returned */
  onFailure(failure: UpstreamFailure, next: EndpointState | null): void
  /** One of the calls above has thrown, or the endpoint's client has. The sink calls abort(). */
  onException(error: unknown): void
}

export class Attempt implements Dispatcher.DispatchHandler {
  private readonly breaker: Breaker | null
  private readonly permit: number
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
  private over = false

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

  start(request: UpstreamRequest, endpoint: EndpointState, sink: AttemptSink): void {
    this.sink = sink
    this.endpoint = endpoint
    this.startUs = this.nowUs()
    this.waits = request.body === null || Buffer.isBuffer(request.body)
    endpoint.begin(this.waits)
    endpoint.client.dispatch(request as Dispatcher.DispatchOptions, this)
  }

  /** The response is complete. @param spentUs the service's own part of the time that the attempt took */
  complete(spentUs: number, nowUs: number): void {
    if (this.over) return
    const outcome = this.breaker === null ? OUTCOME.ok : this.breaker.outcomeOf(this.status, spentUs)
    this.giveBack(outcome, this.status >= 500, nowUs)
  }

  /** The breaker counts a DeadlineError as a failure of the service, and no other reason. */
  abort(reason: Error): void {
    if (this.over) return
    this.reason = reason
    const failed = reason instanceof DeadlineError
    this.giveBack(failed ? OUTCOME.failed : OUTCOME.ignored, failed)
    this.controller?.abort(reason)
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
    this.endpoint?.end(failed, this.waits)
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
    if (this.waits) {
      this.waits = false
      this.endpoint!.answered(this.nowUs() - this.startUs)
    }
    try {
      this.sink!.onHead(status, headers, phrase)
    } catch (error) {
      this.sink!.onException(error)
    }
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    if (this.over) return
    try {
      this.sink!.onData(chunk)
    } catch (error) {
      this.sink!.onException(error)
    }
  }

  onResponseEnd(): void {
    if (this.over) return
    try {
      this.sink!.onEnd()
    } catch (error) {
      this.sink!.onException(error)
    }
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    if (this.over) return
    // undici misses the body that the length of a 304 speaks of; there is none to come (RFC 9110, 15.4.5).
    if (this.status === 304 && error instanceof errors.ResponseContentLengthMismatchError) return this.onResponseEnd()
    try {
      if (isMistake(error)) throw error
      const failure = upstreamFailure(error)
      const next = this.sink!.retryAt(failure)
      // Where another endpoint is asked instead, one that cannot be reached says nothing of the service. Otherwise the
      // loss of one endpoint in two would open the breaker for both.
      const isService = failure.upstreamAtFault && !(next !== null && failure.sent?.written === false)
      this.giveBack(isService ? OUTCOME.failed : OUTCOME.ignored, failure.upstreamAtFault)
      this.sink!.onFailure(failure, next)
    } catch (exception) {
      this.sink!.onException(exception)
    }
  }
}
