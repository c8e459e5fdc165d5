// Holds one exchange while a service has it: the upload's place, its deadline, its cancellation. tries.ts has the
// attempts, and pass-response.ts writes the response to the client. Runs per request. It never gathers a body: if one
// side cannot take more, the other is stopped.

import { cut } from '../../downstream/answer.js'
import { CLIENT_SILENCE_MS, uploadTooSlow } from '../../downstream/body.js'
import type { ClientDeadline } from '../../exchange/client-deadline.js'
import type { Deadline } from '../../exchange/deadlines.js'
import type { Exchange, Holder } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import type { Upload, UploadEvents } from '../../exchange/upload.js'
import type { Attempt } from '../../upstream/attempt.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import { DeadlineError, type UpstreamFailure, upstreamFailure } from '../../upstream/failure.js'
import type { Hedge } from '../../upstream/hedge.js'
import type { PlaceWaiter } from '../../upstream/upload-places.js'
import type { HandlerContext } from '../handler.js'
import { PassedResponse, type ResponseHolder } from './pass-response.js'
import { Patience } from './patience.js'
import { Tries } from './tries.js'

/** How long an upload waits for one of the connections that unfinished uploads may hold. */
const PLACE_WAIT_US = 10e6
/** While the head of a response is waited for, so often it is asked whether another endpoint should be, too. */
const LOOK_US = 200_000
const answerNotTaken = new Rejection('request_timeout', 'answer not taken in time', true)
export const tooLate = new Rejection('deadline_exceeded', "the client's deadline passed before forwarding")
const deadlinePassed = new Rejection('deadline_exceeded', "the client's deadline passed")
const noPlace = new Rejection('overloaded', 'too many uploads wait for a connection', true)

// Slow clients give way while others wait for the upstream connections that they hold.
const uploadGivesWay = new Rejection('request_timeout', 'body too slow while others waited for its connection', true)
const readerGivesWay = new Rejection('client_closed', 'response read too slowly while others waited for its connection')

export class Forwarding implements ResponseHolder, Deadline, Holder, UploadEvents, PlaceWaiter {
  deadlineUs: number
  slot = -1
  readonly exchange: Exchange
  private readonly context: HandlerContext
  private readonly cluster: Cluster
  private readonly tries: Tries
  private readonly upload: Upload | null
  private readonly response: PassedResponse
  /** How much of the service's time went into earlier attempts. */
  private spentBeforeUs = 0

  // Whom the exchange waits for.
  private readonly patience: Patience
  /** The deadline of the service. deadlineUs may be earlier, when something else is looked at. */
  private serviceUntilUs = 0
  /** When another endpoint is asked, if one may be (perTry). */
  private tryUntilUs = 0
  /** Of an upload that is still coming: it may have a connection, or waits for that. */
  private place: 'none' | 'held' | 'awaited' = 'none'
  private placeUntilUs = Number.POSITIVE_INFINITY

  /** @param attempt the first one, at `endpoint` */
  constructor(
    context: HandlerContext,
    exchange: Exchange,
    cluster: Cluster,
    endpoint: EndpointState,
    attempt: Attempt,
  ) {
    this.context = context
    this.exchange = exchange
    this.cluster = cluster
    this.upload = exchange.upload
    this.response = new PassedResponse(exchange, this)
    this.tries = new Tries(context, exchange, cluster, endpoint, attempt, this.response)
    const startUs = exchange.upstreamStartUs
    this.patience = new Patience(cluster.service, startUs, exchange.deadline)
    this.deadlineUs = this.waitForHead(startUs)
    exchange.holder = this
    context.deadlines.add(this)
  }

  begin(): void {
    this.upload?.listen(this)
    if (!this.exchange.concluded) this.start()
  }

  /** After begin(). */
  hedge(hedge: Hedge): void {
    if (!this.exchange.concluded) this.tries.hedge(hedge)
  }

  get attempt(): Attempt {
    return this.tries.attempt
  }

  /** An upload that is still coming begins once there is a place for it. */
  private start(): void {
    if (!this.isUploading) return this.send()
    if (this.tries.endpoint.takePlace(this)) return this.onPlace()
    this.place = 'awaited'
    this.placeUntilUs = this.context.nowUs() + PLACE_WAIT_US
    this.wait()
  }

  get readAheadUs(): number {
    return this.exchange.upstreamStartUs - this.exchange.startUs
  }

  /** Another exchange calls this as it leaves the place: an exception of this one must not reach it. */
  onPlace(): void {
    this.place = 'held'
    this.placeUntilUs = Number.POSITIVE_INFINITY
    try {
      this.wait()
      this.send()
    } catch (error) {
      this.exchange.crash(error)
    }
  }

  private leavePlace(): void {
    const { place } = this
    this.place = 'none'
    this.placeUntilUs = Number.POSITIVE_INFINITY
    if (place === 'held') this.tries.endpoint.leavePlace()
    else if (place === 'awaited') this.tries.endpoint.stopWaiting(this)
  }

  private send(): void {
    const { deadline } = this.exchange
    if (deadline !== null && !this.isInTime(deadline)) return this.giveUp(tooLate)
    this.tries.send()
  }

  private isInTime(deadline: ClientDeadline): boolean {
    const nowUs = this.context.nowUs()
    return deadline.begin(nowUs, this.patience.leftOfTotalUs(nowUs))
  }

  // Another attempt.

  retryAt({ retry, sent }: UpstreamFailure): EndpointState | null {
    return this.tries.nextEndpoint(retry, sent, this.response.headers !== null)
  }

  attemptFailed(failure: UpstreamFailure, next: EndpointState | null): void {
    if (next === null) return this.fail(failure.rejection)
    this.follow(next)
  }

  /** True: the response is not to be passed on, and another endpoint is asked. */
  retryStatus(status: number, declaredBytes: number): boolean {
    const { attempt } = this
    if (!this.cluster.service.retries.statuses.has(status)) return false
    const next = this.tries.nextEndpoint('status', null, false)
    if (next === null) return false
    attempt.discard(declaredBytes)
    this.follow(next)
    return true
  }

  /** The same for a response that has not begun in time. */
  private retryLate(error: DeadlineError): boolean {
    const { attempt } = this
    if (!attempt.isRunning) return false
    if (this.tries.leaveFirst(error)) {
      this.wait()
      return true
    }
    const next = this.tries.nextEndpoint('timeout', null, this.response.headers !== null)
    if (next === null) return false
    attempt.abort(error)
    this.follow(next)
    return true
  }

  private follow(next: EndpointState): void {
    this.leavePlace()
    this.spentBeforeUs = this.patience.clock.spent(this.context.nowUs())
    this.wait()
    this.tries.follow(next, () => {
      this.wait()
      this.start()
    })
  }

  // From the client's side.

  /** Gives all back and aborts the upstream's work; the worker concludes the exchange. */
  abandon(): void {
    const reason = new Error('the exchange has ended')
    try {
      this.letGo(this.context.nowUs())
    } finally {
      this.tries.abort(reason)
    }
    this.upload?.cutShort(reason)
  }

  onRefused(rejection: Rejection): void {
    this.giveUp(rejection)
  }

  /** Of the upload. Once it is complete its connection is no longer the client's to hold. */
  onProgress(): void {
    const begins = this.place === 'awaited' && !this.isUploading
    if (!this.isUploading) this.leavePlace()
    this.wait()
    if (begins) this.send()
  }

  // From the clock.

  expire(): void {
    const nowUs = this.context.nowUs()
    if (this.patience.isDeadlineOver(nowUs)) return this.giveUp(deadlinePassed)
    if (this.patience.clock.isWaitingForClient) return this.judgeClient(nowUs)
    if (nowUs < this.serviceUntilUs) return this.look(nowUs)
    const error = new DeadlineError(this.lateness(nowUs))
    if (!this.patience.isTotalOver(nowUs) && this.retryLate(error)) return
    this.tries.abort(error)
    if (!this.exchange.concluded) this.fail(upstreamFailure(error).rejection)
  }

  /** The service has still time. */
  private look(nowUs: number): void {
    if (nowUs >= this.tryUntilUs) {
      this.tryUntilUs = Number.POSITIVE_INFINITY
      if (this.retryLate(new DeadlineError('per-try timeout'))) return
    }
    if (this.tries.endpoint.isFailing) this.tries.rescue()
    this.deadlineUs = Math.min(this.serviceUntilUs, this.tryUntilUs, nowUs + LOOK_US)
  }

  private judgeClient(nowUs: number): void {
    const { exchange, patience } = this
    if (nowUs >= this.placeUntilUs) return this.giveUp(noPlace)
    const { isUnread } = this.response
    if (patience.isClientLate(nowUs)) return this.giveUp(isUnread ? answerNotTaken : uploadTooSlow)
    const bytes = exchange.bytesIn + exchange.bytesOut
    if (!this.attempt.isRunning) patience.beginPace(nowUs, bytes)
    const isSlow = patience.isClientSlow(nowUs, bytes)
    if (isSlow && this.tries.endpoint.isContended) return this.giveUp(isUnread ? readerGivesWay : uploadGivesWay)
    this.deadlineUs = patience.clientDeadlineUs
  }

  private lateness(nowUs: number): string {
    if (this.patience.isTotalOver(nowUs)) return 'total timeout'
    const isBegun = this.response.headers !== null
    if (this.isUploading && !isBegun) return 'upload timeout'
    return isBegun ? 'idle timeout' : 'first byte timeout'
  }

  /** Something came, or cannot go on: from now the service is waited for, or the client. */
  wait(): void {
    const { patience } = this
    const { isUnread } = this.response
    const nowUs = this.context.nowUs()
    const isComing = this.isUploading && !this.upload!.paused
    if (isUnread || isComing || this.place === 'awaited') {
      // The gate cuts a client that takes nothing of its response for a minute, but has no clock for one whose upload
      // is held back.
      const mustProgress = isUnread ? this.upload?.paused : isComing
      const silentUntilUs = mustProgress ? nowUs + CLIENT_SILENCE_MS * 1000 : Number.POSITIVE_INFINITY
      this.deadlineUs = patience.withClient(nowUs, Math.min(silentUntilUs, this.placeUntilUs))
      return
    }
    // For the first byte from the whole request on.
    if (this.response.headers === null && !this.isUploading) this.deadlineUs = this.waitForHead(nowUs)
    else {
      this.serviceUntilUs = patience.withService(nowUs, this.cluster.service.idleTimeoutMs)
      this.deadlineUs = this.serviceUntilUs
    }
  }

  private waitForHead(nowUs: number): number {
    const { firstByteTimeoutMs, retries } = this.cluster.service
    this.serviceUntilUs = this.patience.withService(nowUs, firstByteTimeoutMs)
    this.tryUntilUs = nowUs + retries.perTryMs * 1000
    return Math.min(this.serviceUntilUs, this.tryUntilUs, nowUs + LOOK_US)
  }

  private get isUploading(): boolean {
    return this.upload?.isComing ?? false
  }

  // The end.

  /** Because of the client: neither its service nor the endpoint is to blame. */
  private giveUp(rejection: Rejection): void {
    this.tries.abort(new Error(rejection.reason))
    if (!this.exchange.concluded) this.fail(rejection)
  }

  /** The attempt is over, and no other follows. */
  private fail(rejection: Rejection): void {
    const { exchange, context } = this
    this.letGo(context.nowUs())
    // The body is still there for a service that stands in, as far as none of it was taken.
    if (!this.response.isBegun) return context.fail(exchange, rejection)
    this.upload?.drop()
    exchange.code = rejection.code
    exchange.reason = rejection.reason
    // Concluded first: cutting calls back at once, as if the client had left.
    context.conclude(exchange)
    cut(exchange)
  }

  /** The response is complete. */
  settle(): void {
    const nowUs = this.context.nowUs()
    this.letGo(nowUs)
    this.attempt.complete(this.exchange.upstreamUs - this.spentBeforeUs, nowUs)
  }

  conclude(): void {
    this.context.conclude(this.exchange)
  }

  /** The service has sent its response: the client that still reads it holds nothing of the service's. */
  endService(): void {
    const nowUs = this.context.nowUs()
    this.exchange.upstreamUs = this.patience.clock.spent(nowUs)
    this.leavePlace()
    this.attempt.complete(this.exchange.upstreamUs - this.spentBeforeUs, nowUs)
  }

  /** Gives back all that it holds but the attempt. May be called again. */
  protected letGo(nowUs: number): void {
    const { exchange } = this
    exchange.endUs = nowUs
    exchange.upstreamUs = this.patience.clock.spent(nowUs)
    exchange.holder = null
    this.context.deadlines.remove(this)
    this.tries.stop()
    this.leavePlace()
  }
}
