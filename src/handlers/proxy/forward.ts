// Forwards one exchange: attempts, deadlines, backpressure both ways, cancellation. The only user of undici on the request's way.
// Runs per request. Neither body is ever gathered here: what one side cannot take stops the other.
import type { IncomingHttpHeaders } from 'node:http'
import type { Dispatcher } from 'undici'
import type { Service } from '../../config/compile.js'
import { CLIENT_SILENCE_MS, type Upload, type UploadEvents, uploadTooSlow } from '../../downstream/body.js'
import { answerWhole, cut, MOST_WHOLE_BYTES, StreamedAnswer } from '../../downstream/uws/respond.js'
import type { Deadline, Deadlines } from '../../exchange/deadlines.js'
import type { Exchange, Holder } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import { OUTCOME } from '../../upstream/breaker.js'
import type { Cluster } from '../../upstream/cluster.js'
import type { EndpointState } from '../../upstream/endpoint-state.js'
import { DeadlineError, isMistake, type UpstreamFailure, upstreamFailure } from '../../upstream/failure.js'
import { idempotent } from '../../upstream/http1/pool.js'
import { errors } from '../../upstream/undici.js'
import type { PlaceWaiter } from '../../upstream/upload-places.js'
import { Patience } from './patience.js'
import { upstreamRequest } from './upstream-request.js'

/** How long an upload waits for one of the connections that unfinished uploads may hold. */
const PLACE_WAIT_US = 10e6
const answerNotTaken = new Rejection('request_timeout', 'answer not taken in time', true)
const noPlace = new Rejection('overloaded', 'too many uploads wait for a connection', true)

// Slow clients give way while others wait for the upstream connections that they hold.
const uploadGivesWay = new Rejection('request_timeout', 'body too slow while others waited for its connection', true)
const readerGivesWay = new Rejection('client_closed', 'response read too slowly while others waited for its connection')

/** What forwarding needs of the worker. */
export interface ForwardContext {
  readonly deadlines: Deadlines
  nowUs(): number
  /** The answer is complete, cut, or the client is gone: log it, count it. */
  conclude(exchange: Exchange): void
  /** Nothing was sent yet: the client gets a problem. */
  refuse(exchange: Exchange, rejection: Rejection): void
}

/** To an endpoint of the cluster. */
export function forward(context: ForwardContext, exchange: Exchange, cluster: Cluster, endpoint: EndpointState): void {
  new Forwarding(context, exchange, cluster, endpoint).begin()
}

class Forwarding implements Dispatcher.DispatchHandler, Deadline, Holder, UploadEvents, PlaceWaiter {
  deadlineUs: number
  slot = -1
  readonly exchange: Exchange
  private readonly context: ForwardContext
  private readonly service: Service
  private readonly cluster: Cluster
  private endpoint: EndpointState
  private readonly upload: Upload | null
  private controller: Dispatcher.DispatchController | null = null
  /** Why we gave up before undici did; it is told as soon as it hands us a controller. */
  private abortReason: Error | null = null
  /** Nothing of the endpoint's is held: there is no attempt, or it has given its place back. */
  private released = true

  // Whom the exchange waits for.
  private readonly patience: Patience
  /** Of an upload that is still coming: it may have a connection, or waits for that. */
  private place: 'none' | 'held' | 'awaited' = 'none'
  private placeUntilUs = Number.POSITIVE_INFINITY

  // The answer, while its head waits for the first chunk to leave together with it.
  private phrase = ''
  private headers: IncomingHttpHeaders | null = null
  private length = -1
  private answer: StreamedAnswer | null = null
  private upstreamDone = false

  constructor(context: ForwardContext, exchange: Exchange, cluster: Cluster, endpoint: EndpointState) {
    this.context = context
    this.cluster = cluster
    this.endpoint = endpoint
    this.exchange = exchange
    const service = exchange.service!
    this.service = service
    this.upload = exchange.upload
    const startUs = exchange.upstreamStartUs
    this.patience = new Patience(service, startUs)
    this.deadlineUs = this.patience.withService(startUs, service.firstByteTimeoutMs)
    exchange.holder = this
    context.deadlines.add(this)
  }

  begin(): void {
    this.upload?.listen(this)
    if (!this.exchange.concluded) this.start()
  }

  /** At exchange.endpoint. An upload that is still coming begins once there is a place for it. */
  private start(): void {
    if (!this.isUploading) return this.attempt()
    if (this.endpoint.takePlace(this)) return this.onPlace()
    this.place = 'awaited'
    this.placeUntilUs = this.context.nowUs() + PLACE_WAIT_US
    this.wait()
  }

  get readAheadUs(): number {
    return this.exchange.upstreamStartUs - this.exchange.startUs
  }

  /** Called by the exchange that leaves the place, which an exception here is none of. */
  onPlace(): void {
    this.place = 'held'
    this.placeUntilUs = Number.POSITIVE_INFINITY
    try {
      this.wait()
      this.attempt()
    } catch (error) {
      this.exchange.crash(error)
    }
  }

  private leavePlace(): void {
    const { place } = this
    this.place = 'none'
    this.placeUntilUs = Number.POSITIVE_INFINITY
    if (place === 'held') this.endpoint.leavePlace()
    else if (place === 'awaited') this.endpoint.stopWaiting(this)
  }

  private attempt(): void {
    const exchange = this.exchange
    const { endpoint } = this
    exchange.attempts++
    this.controller = null
    const request = upstreamRequest(exchange, endpoint.endpoint)
    this.released = false
    endpoint.begin()
    endpoint.client.dispatch(request, this)
  }

  // From the client, in this order. Whatever it calls with may come from the upstream: an exception here is not for the
  // client to catch.

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.controller = controller
    if (this.abortReason !== null) controller.abort(this.abortReason)
  }

  onResponseStart(_: Dispatcher.DispatchController, status: number, headers: IncomingHttpHeaders, phrase = ''): void {
    try {
      this.takeHead(status, headers, phrase)
    } catch (error) {
      this.exchange.crash(error)
    }
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    try {
      this.takeData(chunk)
    } catch (error) {
      this.exchange.crash(error)
    }
  }

  onResponseEnd(): void {
    try {
      this.takeEnd()
    } catch (error) {
      this.exchange.crash(error)
    }
  }

  onResponseError(_: Dispatcher.DispatchController, error: Error): void {
    try {
      this.takeError(error)
    } catch (exception) {
      this.exchange.crash(exception)
    }
  }

  private takeHead(status: number, headers: IncomingHttpHeaders, phrase: string): void {
    // uWS cannot send interim answers other than 100 Continue, which it has sent itself.
    if (status < 200) return
    const exchange = this.exchange
    exchange.status = status
    this.phrase = phrase
    this.headers = headers
    const declared = headers['content-length']
    // Both clients refuse one that is no number, or differs from another.
    this.length = declared === undefined ? -1 : Number(declared)
    if (hasBody(exchange) && this.length !== 0) scheduleHead(this)
  }

  private takeData(chunk: Buffer): void {
    const exchange = this.exchange
    if (exchange.res === null) return
    // Before the response is complete: uWS takes nothing back to reading after that.
    if (exchange.bytesOut + chunk.length === this.length) this.upload?.drop()
    if (this.answer === null && chunk.length === this.length && chunk.length <= MOST_WHOLE_BYTES) {
      // All of it is here: head and body leave in one write.
      return this.answerWhole(chunk, -1)
    }
    const taken = this.startAnswer().send(chunk)
    this.wait()
    if (!taken) this.controller!.pause()
  }

  private takeEnd(): void {
    this.upstreamDone = true
    const exchange = this.exchange
    if (exchange.concluded) return
    this.upload?.drop()
    if (this.answer === null) {
      const empty = hasBody(exchange) && this.length <= 0 ? emptyBody : null
      return this.answerWhole(empty, exchange.status === 204 ? -1 : this.length)
    }
    if (!this.answer.drained) return this.endService(null, this.context.nowUs()) // drained() goes on
    this.answer.end()
    this.conclude(null)
  }

  private takeError(error: Error): void {
    this.releaseEndpoint()
    this.leavePlace()
    const exchange = this.exchange
    // Whoever aborted has decided the outcome already.
    if (exchange.concluded || this.abortReason !== null) return
    // undici misses the body that the length of a 304 speaks of; there is none to come (RFC 9110, 15.4.5).
    if (exchange.status === 304 && error instanceof errors.ResponseContentLengthMismatchError) return this.takeEnd()
    if (isMistake(error)) return exchange.crash(error)
    const failure = upstreamFailure(error)
    if (this.mayRetry(failure)) {
      const next = this.cluster.pick(this.endpoint)
      if (next !== null && !next.isFull) {
        this.endpoint = next
        exchange.endpoint = next.endpoint
        return this.start()
      }
    }
    this.fail(failure)
  }

  // From the client's side.

  /** Gives all back, then aborts the upstream's work; the worker concludes the exchange. */
  abandon(): void {
    const reason = new Error('the exchange has ended')
    this.settle(null)
    this.upload?.cutShort(reason)
    this.abort(reason)
  }

  onRefused(rejection: Rejection): void {
    this.giveUp(rejection)
  }

  /** Of the upload. Once it is complete its connection is no longer the client's to hold. */
  onProgress(): void {
    const begins = this.place === 'awaited' && !this.isUploading
    if (!this.isUploading) this.leavePlace()
    this.wait()
    if (begins) this.attempt()
  }

  /** The client can take more. */
  private drained(): void {
    if (!this.upstreamDone) {
      this.wait()
      return this.controller!.resume()
    }
    this.answer!.end()
    this.conclude(null)
  }

  // From the clock.

  expire(): void {
    const nowUs = this.context.nowUs()
    if (this.patience.clock.isWaitingForClient) return this.judgeClient(nowUs)
    const error = new DeadlineError(this.lateness(nowUs))
    this.abort(error)
    if (!this.exchange.concluded) this.fail(upstreamFailure(error))
  }

  private judgeClient(nowUs: number): void {
    const { exchange, patience } = this
    if (nowUs >= this.placeUntilUs) return this.giveUp(noPlace)
    if (patience.isClientLate(nowUs)) return this.giveUp(this.answer?.waiting ? answerNotTaken : uploadTooSlow)
    const bytes = exchange.bytesIn + exchange.bytesOut
    if (this.released) patience.beginPace(nowUs, bytes)
    const isSlow = patience.isClientSlow(nowUs, bytes)
    if (isSlow && this.endpoint.isContended) {
      return this.giveUp(this.answer?.waiting ? readerGivesWay : uploadGivesWay)
    }
    this.deadlineUs = patience.clientDeadlineUs
  }

  /** The head waited for a chunk until the end of this turn of the loop: it goes on its own (server-sent events, long polls). */
  flushHead(): void {
    if (this.exchange.res === null || this.answer !== null) return
    this.wait()
    this.startAnswer().flushHead()
  }

  /** The breaker is told before the client is: whoever asks again after this answer meets the state it led to. */
  private answerWhole(body: Buffer | null, declaredLength: number): void {
    this.settle(null)
    answerWhole(this.exchange, this.phrase, this.headers!, body, declaredLength)
    this.context.conclude(this.exchange)
  }

  private startAnswer(): StreamedAnswer {
    this.answer ??= new StreamedAnswer(this.exchange, this.phrase, this.headers!, this.length, () => this.drained())
    return this.answer
  }

  private lateness(nowUs: number): string {
    if (this.patience.isTotalOver(nowUs)) return 'total timeout'
    if (this.isUploading && this.headers === null) return 'upload timeout'
    return this.headers === null ? 'first byte timeout' : 'idle timeout'
  }

  /** Something came, or cannot go on: from now the service is waited for, or the client. */
  private wait(): void {
    const { patience } = this
    const isUnread = this.answer?.waiting ?? false
    const nowUs = this.context.nowUs()
    const isComing = this.isUploading && !this.upload!.paused
    if (isUnread || isComing || this.place === 'awaited') {
      // The gate cuts a client that takes nothing of its response for a minute, but has no clock for one whose upload is held back.
      const mustProgress = isUnread ? this.upload?.paused : isComing
      const silentUntilUs = mustProgress ? nowUs + CLIENT_SILENCE_MS * 1000 : Number.POSITIVE_INFINITY
      this.deadlineUs = patience.withClient(nowUs, Math.min(silentUntilUs, this.placeUntilUs))
      return
    }
    const { firstByteTimeoutMs, idleTimeoutMs } = this.service
    // For the first byte from the whole request on.
    const isFirst = this.headers === null && !this.isUploading
    this.deadlineUs = patience.withService(nowUs, isFirst ? firstByteTimeoutMs : idleTimeoutMs)
  }

  private get isUploading(): boolean {
    return this.upload?.isComing ?? false
  }

  private mayRetry(failure: UpstreamFailure): boolean {
    if (failure.retry === 'never' || this.headers !== null || this.upload?.taken) return false
    if (this.exchange.attempts >= 2) return false
    return failure.retry === 'always' ? this.cluster.endpoints.length > 1 : idempotent.has(this.exchange.method)
  }

  /** Because of the client. */
  private giveUp(rejection: Rejection): void {
    this.abort(new Error(rejection.reason))
    if (!this.exchange.concluded) this.fail({ rejection, retry: 'never', upstreamAtFault: false })
  }

  private abort(reason: Error): void {
    this.abortReason ??= reason
    this.controller?.abort(reason)
  }

  private fail(failure: UpstreamFailure): void {
    const exchange = this.exchange
    if (this.answer === null) {
      this.settle(failure)
      // The body is still there for a service that stands in, as far as none of it was taken.
      this.context.refuse(exchange, failure.rejection)
      return
    }
    this.upload?.drop()
    exchange.code = failure.rejection.code
    exchange.reason = failure.rejection.reason
    // Concluded first: cutting calls back at once, as if the client had left.
    this.conclude(failure)
    cut(exchange)
  }

  private conclude(failure: UpstreamFailure | null): void {
    this.settle(failure)
    this.context.conclude(this.exchange)
  }

  /**
   * Gives back all this forwarding holds: its deadline, its place in the endpoint's queue, the breaker's permit. Each
   * once, if it is called again.
   */
  private settle(failure: UpstreamFailure | null): void {
    const exchange = this.exchange
    const nowUs = this.context.nowUs()
    exchange.endUs = nowUs
    exchange.holder = null
    this.context.deadlines.remove(this)
    this.endService(failure, nowUs)
  }

  /** The service's part is over: a client that is still reading keeps nothing of it. */
  private endService(failure: UpstreamFailure | null, nowUs: number): void {
    const exchange = this.exchange
    exchange.upstreamUs = this.patience.clock.spent(nowUs)
    this.leavePlace()
    this.releaseEndpoint()
    const permit = exchange.breakerPermit
    if (permit < 0) return
    exchange.breakerPermit = -1
    this.cluster.breaker?.report(permit, this.verdict(failure), nowUs)
  }

  private verdict(failure: UpstreamFailure | null): number {
    const rules = this.service.breaker!
    if (failure !== null) return failure.upstreamAtFault ? OUTCOME.failed : OUTCOME.ignored
    if (this.exchange.code === 'client_closed' || this.exchange.code === 'internal_error') return OUTCOME.ignored
    if (rules.failureStatuses.has(this.exchange.status)) return OUTCOME.failed
    return this.exchange.upstreamUs > rules.slowCallMs * 1000 ? OUTCOME.slow : OUTCOME.ok
  }

  private releaseEndpoint(): void {
    if (this.released) return
    this.released = true
    this.endpoint.end()
  }
}

const emptyBody = Buffer.alloc(0)

/** RFC 9112, 6.3: answers that end with their head. */
function hasBody(exchange: Exchange): boolean {
  return exchange.method !== 'HEAD' && exchange.status !== 204 && exchange.status !== 304
}

/** Answers whose head came without a chunk in the same read; most get theirs before the microtask runs. */
let waitingHeads: Forwarding[] = []

function scheduleHead(forwarding: Forwarding): void {
  if (waitingHeads.push(forwarding) === 1) queueMicrotask(flushHeads)
}

function flushHeads(): void {
  const heads = waitingHeads
  waitingHeads = []
  for (const forwarding of heads) {
    try {
      forwarding.flushHead()
    } catch (error) {
      forwarding.exchange.crash(error)
    }
  }
}
