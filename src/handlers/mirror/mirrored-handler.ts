// A route's handler with a mirror: it answers as it would without, and another service gets a copy of some requests.
// Runs per request of routes that have a mirror. Nothing here may delay, fail or hold the exchange.
import type { MirrorRules, Route, RouteTable, Service } from '../../config/compile.js'
import { MIRROR_FIELD } from '../../config/mirror.js'
import { Spread } from '../../config/split.js'
import type { Exchange } from '../../exchange/exchange.js'
import type { Logger } from '../../telemetry/log.js'
import type { Bulkhead } from '../../upstream/bulkhead.js'
import { NONE } from '../../upstream/cluster/balancer.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { BranchCounter, Handler, HandlerContext } from '../handler.js'
import { balanceKeyReader } from '../proxy/balance-key.js'
import type { Proxies } from '../proxy/proxy.js'
import { copiedRequest } from '../proxy/upstream-request.js'
import { slotOf } from '../split.js'
import { CopiedUpload } from './copied-upload.js'
import { MirroredRequest, type MirrorOwner } from './mirrored-request.js'

/** Of one route, per worker: the most that a service which hangs can hold. */
const MOST_IN_FLIGHT = 100
const MARK = `${MIRROR_FIELD}: 1\r\n`

/** What the worker gives the mirrors of each generation. */
export interface MirrorParts {
  readonly branches: BranchCounter
  readonly log: Logger
}

export class MirroredHandler implements Handler, MirrorOwner {
  readonly needsBody: boolean
  readonly context: HandlerContext
  readonly service: Service
  private readonly cluster: Cluster
  private readonly bulkhead: Bulkhead | null
  private readonly keyOf: ((exchange: Exchange) => number) | null
  /** Copies that were sent and have not ended. */
  private inFlight = 0
  private readonly inner: Handler
  private readonly spread = new Spread(Math.random())
  private readonly share: number
  private readonly maxBodyBytes: number
  private readonly slot: number
  private readonly counter: BranchCounter
  private readonly log: Logger

  constructor(
    inner: Handler,
    { service, share, maxBodyBytes }: MirrorRules,
    { name }: Route,
    table: RouteTable,
    proxies: Proxies,
    context: HandlerContext,
    { branches, log }: MirrorParts,
  ) {
    this.needsBody = inner.needsBody
    this.inner = inner
    this.share = share
    this.maxBodyBytes = maxBodyBytes
    this.context = context
    this.service = service
    this.cluster = proxies.clusterOf(service)
    this.bulkhead = proxies.bulkheadOf(service)
    this.keyOf = balanceKeyReader(service)
    this.slot = slotOf(table.branches, 'mirror', name, service.name)
    this.counter = branches
    this.log = log
  }

  handle(exchange: Exchange): void {
    const { inner } = this
    if (this.spread.next() >= this.share) return inner.handle(exchange)
    if (exchange.upload !== null) {
      exchange.upload = new CopiedUpload(exchange.upload, exchange, this)
      return inner.handle(exchange)
    }
    // The exchange goes first.
    inner.handle(exchange)
    this.copy(exchange, exchange.body)
  }

  /** Throws nothing. @param body null where the request has none */
  copy(exchange: Exchange, body: Buffer | null): void {
    try {
      if (body !== null && body.length > this.maxBodyBytes) return this.dropBody()
      if (this.isTooLate(exchange)) return
      if (this.inFlight >= MOST_IN_FLIGHT) return this.counter.dropped(this.slot, 'in_flight')
      if (!this.send(exchange, body)) this.counter.dropped(this.slot, 'unavailable')
    } catch (error) {
      this.crashed(error)
    }
  }

  /** Its client's deadline has passed: as its service gets no such request, the mirror gets no copy. */
  private isTooLate({ deadline }: Exchange): boolean {
    // Its service was told of the deadline before, where it has the request.
    if (deadline === null || deadline.leftMs > 0) return false
    return !deadline.begin(this.context.nowUs(), this.service.totalTimeoutMs * 1000)
  }

  /** The body was not whole in memory when the service got it. */
  dropBody(): void {
    this.counter.dropped(this.slot, 'body')
  }

  /** False: the service has no endpoint or no place for it, or its breaker refuses. */
  private send(exchange: Exchange, body: Buffer | null): boolean {
    const { bulkhead } = this
    if (bulkhead === null) return this.sendWithPlace(exchange, body)
    // It does not queue: requests whose clients wait go first.
    if (!bulkhead.take()) return false
    let sent = false
    try {
      sent = this.sendWithPlace(exchange, body)
    } finally {
      if (!sent) bulkhead.leave()
    }
    return sent
  }

  private sendWithPlace(exchange: Exchange, body: Buffer | null): boolean {
    const { cluster, context, keyOf } = this
    const endpoint = cluster.pick(keyOf === null ? 0 : keyOf(exchange), NONE)
    if (endpoint === null || endpoint.isFull) return false
    // Before the breaker is asked: what throws here would keep its permit.
    const request = copiedRequest(exchange, endpoint.endpoint, body, MARK)
    const nowUs = context.nowUs()
    const attempt = cluster.attempt(nowUs)
    if (attempt === null) return false
    this.inFlight++
    this.counter.begun(this.slot)
    new MirroredRequest(this, attempt, nowUs).start(request, endpoint)
    return true
  }

  // From the copies.

  ended(failed: boolean): void {
    this.inFlight--
    this.bulkhead?.leave()
    this.counter.ended(this.slot, failed)
  }

  crashed(error: unknown): void {
    this.log.error({ err: error, service: this.service.name }, 'exception on the way of a mirrored request')
  }
}
