// Holds one exchange while a service has it: its attempts, the upload's place, its deadline, its cancellation.
// pass-response.ts writes the response to the client. Runs per request. It never gathers a body: if one side cannot
// take more, the other is stopped.

import { cut } from '../../downstream/answer.js'
import { CLIENT_SILENCE_MS, uploadTooSlow } from '../../downstream/body.js'
import type { Deadline } from '../../exchange/deadlines.js'
import type { Exchange, Holder } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import type { Upload, UploadEvents } from '../../exchange/upload.js'
import type { Attempt } from '../../upstream/attempt.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import { DeadlineError, type UpstreamFailure, upstreamFailure } from '../../upstream/failure.js'
import { mayRetry } from '../../upstream/retries.js'
import type { PlaceWaiter } from '../../upstream/upload-places.js'
import type { HandlerContext } from '../handler.js'
import { PassedResponse, type ResponseHolder } from './pass-response.js'
import { Patience } from './patience.js'
import { upstreamRequest } from './upstream-request.js'

/** How long an upload waits for one of the connections that unfinished uploads may hold. */
const PLACE_WAIT_US = 10e6
const answerNotTaken = new Rejection('request_timeout', 'answer not taken in time', true)
const noPlace = new Rejection('overloaded', 'too many uploads wait for a connection', true)

// Slow clients give way while others wait for the upstream connections that they hold.
const uploadGivesWay = new Rejection('request_timeout', 'body too slow while others waited for its connection', true)
const readerGivesWay = new Rejection('client_closed', 'response read too slowly while others waited for its connection')

export class Forwarding implements ResponseHolder, Deadline, Holder, UploadEvents, PlaceWaiter {
  deadlineUs: number
  slot = -1
  readonly exchange: Exchange
  attempt: Attempt
  private readonly context: HandlerContext
  private readonly cluster: Cluster
  private endpoint: EndpointState
  private readonly upload: Upload | null
  private readonly response: PassedResponse
  /** For retries.ts. exchange.attempts also counts what the endpoints' clients have sent again. */
  private attempts: number
  /** How much of the service's time went into earlier attempts. */
  private spentBeforeUs = 0

  // Whom the exchange waits for.
  private readonly patience: Patience
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
    this.endpoint = endpoint
    this.attempt = attempt
    this.upload = exchange.upload
    this.response = new PassedResponse(exchange, this)
    // Not 0 where this is the service of a fallback.
    this.attempts = exchange.attempts
    const startUs = exchange.upstreamStartUs
    this.patience = new Patience(cluster.service, startUs)
    this.deadlineUs = this.patience.withService(startUs, cluster.service.firstByteTimeoutMs)
    exchange.holder = this
    context.deadlines.add(this)
  }

  begin(): void {
    this.upload?.listen(this)
    if (!this.exchange.concluded) this.start()
  }

  /** At this.endpoint. An upload that is still coming begins once there is a place for it. */
  private start(): void {
    if (!this.isUploading) return this.send()
    if (this.endpoint.takePlace(this)) return this.onPlace()
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
    if (place === 'held') this.endpoint.leavePlace()
    else if (place === 'awaited') this.endpoint.stopWaiting(this)
  }

  private send(): void {
    const { exchange, endpoint } = this
    this.attempts++
    exchange.attempts++
    this.attempt.start(upstreamRequest(exchange, endpoint.endpoint), endpoint, this.response)
  }

  retryAt({ sent }: UpstreamFailure): EndpointState | null {
    const { method } = this.exchange
    const { cluster, attempts } = this
    const responseStarted = this.response.headers !== null
    const bodyTaken = this.upload?.taken ?? false
    const hasOther = cluster.hasOther(this.endpoint)
    if (!mayRetry(sent, { method, responseStarted, bodyTaken, attempts, hasOther })) return null
    const next = cluster.pick(0, [this.endpoint])
    return next === null || next.isFull ? null : next
  }

  attemptFailed(failure: UpstreamFailure, next: EndpointState | null): void {
    this.leavePlace()
    if (next === null || !this.retry(next)) this.fail(failure.rejection)
  }

  /** False: the breaker refuses. */
  private retry(endpoint: EndpointState): boolean {
    const { exchange } = this
    const nowUs = this.context.nowUs()
    const attempt = this.cluster.attempt(nowUs)
    if (attempt === null) return false
    this.spentBeforeUs = this.patience.clock.spent(nowUs)
    this.endpoint = endpoint
    this.attempt = attempt
    exchange.endpoint = endpoint.endpoint
    this.start()
    return true
  }

  // From the client's side.

  /** Gives all back and aborts the upstream's work; the worker concludes the exchange. */
  abandon(): void {
    const reason = new Error('the exchange has ended')
    try {
      this.letGo(this.context.nowUs())
    } finally {
      this.attempt.abort(reason)
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
    if (this.patience.clock.isWaitingForClient) return this.judgeClient(nowUs)
    const error = new DeadlineError(this.lateness(nowUs))
    this.attempt.abort(error)
    if (!this.exchange.concluded) this.fail(upstreamFailure(error).rejection)
  }

  private judgeClient(nowUs: number): void {
    const { exchange, patience } = this
    if (nowUs >= this.placeUntilUs) return this.giveUp(noPlace)
    const { isUnread } = this.response
    if (patience.isClientLate(nowUs)) return this.giveUp(isUnread ? answerNotTaken : uploadTooSlow)
    const bytes = exchange.bytesIn + exchange.bytesOut
    if (!this.attempt.isRunning) patience.beginPace(nowUs, bytes)
    const isSlow = patience.isClientSlow(nowUs, bytes)
    if (isSlow && this.endpoint.isContended) return this.giveUp(isUnread ? readerGivesWay : uploadGivesWay)
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
    const { firstByteTimeoutMs, idleTimeoutMs } = this.cluster.service
    // For the first byte from the whole request on.
    const isFirst = this.response.headers === null && !this.isUploading
    this.deadlineUs = patience.withService(nowUs, isFirst ? firstByteTimeoutMs : idleTimeoutMs)
  }

  private get isUploading(): boolean {
    return this.upload?.isComing ?? false
  }

  // The end.

  /** Because of the client. */
  private giveUp(rejection: Rejection): void {
    this.attempt.abort(new Error(rejection.reason))
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
    this.leavePlace()
  }
}
