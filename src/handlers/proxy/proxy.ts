// The proxy handler: the exchange gets the response of a service. Here is what precedes the first attempt: an upload is
// read ahead, an endpoint picked, the breaker asked. The rest is in forwarding.ts. Runs per request.
import type { Route, RouteTable, Service } from '../../config/compile.js'
import { IMPORTANCES } from '../../config/shedding.js'
import type { Exchange } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import type { Attempt } from '../../upstream/attempt.js'
import type { Bulkhead, Bulkheads } from '../../upstream/bulkhead.js'
import { NONE } from '../../upstream/cluster/balancer.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import { Hedge } from '../../upstream/hedge.js'
import type { Upstreams } from '../../upstream/upstreams.js'
import type { Handler, HandlerContext } from '../handler.js'
import { withBalanceKey } from './balance-key.js'
import { BoundForwarding } from './bound-forwarding.js'
import { Forwarding } from './forwarding.js'
import { type ReadAheadContext, readAhead } from './read-ahead.js'
import { type WaitContext, WaitingCall } from './waiting-call.js'

const HIGH = IMPORTANCES.indexOf('high')
const noEndpoint = new Rejection('no_endpoint', 'no healthy endpoint')
const drained = new Rejection('no_endpoint', 'all endpoints drained')
const queueFull = new Rejection('overloaded', 'too many requests waiting for a connection')
const breakerOpen = new Rejection('breaker_open', 'breaker open')
const breakerHeld = new Rejection('breaker_open', 'breaker held open')

/** What the worker gives the proxy handlers of each generation. */
export interface ProxyParts {
  readonly upstreams: Upstreams
}

/** The services of one generation, shared by the handlers of all routes. */
export class Proxies {
  /** By Service.index. */
  private readonly clusters: readonly Cluster[]
  /** By Service.index. One for all routes of a service: it keeps nothing that is about a route. */
  private readonly handlers: readonly Handler[]
  private readonly bulkheads: Bulkheads
  /** By Service.index. Null where the service has no bound. */
  private readonly bounds: readonly (Bulkhead | null)[]
  private readonly context: HandlerContext

  constructor(context: HandlerContext, { upstreams }: ProxyParts, table: RouteTable) {
    this.context = context
    this.bulkheads = upstreams.bulkheads
    this.clusters = upstreams.clustersOf(table.services)
    this.bounds = this.clusters.map((cluster) => this.bulkheads.hold(cluster))
    this.handlers = table.services.map((service) => this.make(service, null))
  }

  handlerOf(service: Service, { hedge }: Route): Handler {
    if (hedge === null) return this.handlers[service.index]!
    return this.make(service, new Hedge(hedge, this.context.nowUs()))
  }

  private make(service: Service, hedge: Hedge | null): Handler {
    const { context } = this
    const cluster = this.clusterOf(service)
    const bulkhead = this.bounds[service.index]!
    let proxy: ServiceProxy
    if (bulkhead !== null) proxy = new BoundServiceProxy(context, cluster, bulkhead, hedge)
    else if (hedge !== null) proxy = new HedgedProxy(context, cluster, hedge)
    else proxy = new ServiceProxy(context, cluster)
    return withBalanceKey(proxy, service)
  }

  clusterOf(service: Service): Cluster {
    return this.clusters[service.index]!
  }

  /** Null where the service has no bound. */
  bulkheadOf(service: Service): Bulkhead | null {
    return this.bounds[service.index]!
  }

  /** No exchange is left that could ask for an endpoint. */
  close(): void {
    for (const cluster of this.clusters) this.bulkheads.release(cluster)
    for (const cluster of this.clusters) cluster.close()
  }
}

class ServiceProxy implements Handler {
  readonly needsBody = true
  protected readonly context: HandlerContext
  protected readonly cluster: Cluster
  private readonly reading: ReadAheadContext

  constructor(context: HandlerContext, cluster: Cluster) {
    this.context = context
    this.cluster = cluster
    const { deadlines, nowUs, fail: refuse } = context
    this.reading = {
      deadlines,
      nowUs,
      mayBeginEarly: () => cluster.mayBeginEarly,
      begin: (exchange) => this.call(exchange),
      refuse,
    }
  }

  handle(exchange: Exchange): void {
    exchange.service = this.cluster.service
    exchange.endpoint = null
    // As a fallback: why the route's handler failed is not the reason of this service's response.
    exchange.reason = ''
    if (exchange.upload === null || this.isShut()) return this.call(exchange)
    exchange.downstream.continueBody()
    readAhead(this.reading, exchange)
  }

  /** Every request is refused for now: nobody need wait for its body. */
  protected isShut(): boolean {
    return this.cluster.breaker?.isShut(this.context.nowUs()) ?? false
  }

  protected call(exchange: Exchange): void {
    const forwarding = this.prepare(exchange)
    if (forwarding !== null) this.begin(exchange, forwarding)
  }

  /** Null: the exchange was refused. */
  protected prepare(exchange: Exchange): Forwarding | null {
    const { context, cluster } = this
    // An exchange that has waited for something is watched; any other is still in the turn of the loop that it came in.
    exchange.upstreamStartUs = exchange.downstream.watched ? context.nowUs() : exchange.startUs
    const endpoint = cluster.pick(exchange.balanceKey, NONE)
    if (endpoint === null) return this.refuse(exchange, cluster.isDrained ? drained : noEndpoint)
    if (endpoint.isFull && (exchange.route!.importance < HIGH || endpoint.isFullForAll)) {
      return this.refuse(exchange, queueFull)
    }
    const attempt = cluster.attempt(exchange.upstreamStartUs)
    if (attempt === null) {
      exchange.retryAfterSeconds = cluster.breaker!.retryAfterSeconds(context.nowUs())
      return this.refuse(exchange, cluster.breaker!.isHeldOpen ? breakerHeld : breakerOpen)
    }
    exchange.endpoint = endpoint.endpoint
    return this.forward(exchange, endpoint, attempt)
  }

  protected forward(exchange: Exchange, endpoint: EndpointState, attempt: Attempt): Forwarding {
    return new Forwarding(this.context, exchange, this.cluster, endpoint, attempt)
  }

  private refuse(exchange: Exchange, rejection: Rejection): null {
    this.context.fail(exchange, rejection)
    return null
  }

  protected begin(exchange: Exchange, forwarding: Forwarding): void {
    exchange.downstream.watch()
    // Where the breaker was shut when that was to be asked, and is not any more.
    exchange.downstream.continueBody()
    this.launch(forwarding)
  }

  protected launch(forwarding: Forwarding): void {
    forwarding.begin()
  }
}

/** For a service that bounds how many requests it has in flight. */
class BoundServiceProxy extends ServiceProxy {
  private readonly bulkhead: Bulkhead
  private readonly waiting: WaitContext
  /** Null where the route does not hedge. */
  private readonly hedge: Hedge | null

  constructor(context: HandlerContext, cluster: Cluster, bulkhead: Bulkhead, hedge: Hedge | null) {
    super(context, cluster)
    const { deadlines, nowUs, fail: refuse } = context
    this.bulkhead = bulkhead
    this.hedge = hedge
    this.waiting = { deadlines, nowUs, begin: (exchange) => this.callWithPlace(exchange), refuse }
  }

  protected override isShut(): boolean {
    return this.bulkhead.isFull || super.isShut()
  }

  protected override call(exchange: Exchange): void {
    const { bulkhead, context } = this
    if (bulkhead.take()) return this.callWithPlace(exchange)
    if (bulkhead.rules.queueSize > 0 && new WaitingCall(this.waiting, exchange, bulkhead).join()) return
    bulkhead.noteRefusal(false)
    context.fail(exchange, bulkhead.full)
  }

  /** The forwarding gives the place back, once there is one. */
  private callWithPlace(exchange: Exchange): void {
    let forwarding: Forwarding | null = null
    try {
      forwarding = this.prepare(exchange)
    } finally {
      if (forwarding === null) this.bulkhead.leave()
    }
    if (forwarding !== null) this.begin(exchange, forwarding)
  }

  protected override forward(exchange: Exchange, endpoint: EndpointState, attempt: Attempt): Forwarding {
    return new BoundForwarding(this.context, exchange, this.cluster, endpoint, attempt, this.bulkhead)
  }

  protected override launch(forwarding: Forwarding): void {
    forwarding.begin()
    if (this.hedge !== null) forwarding.hedge(this.hedge)
  }
}

/** For a route that hedges. */
class HedgedProxy extends ServiceProxy {
  private readonly hedge: Hedge

  constructor(context: HandlerContext, cluster: Cluster, hedge: Hedge) {
    super(context, cluster)
    this.hedge = hedge
  }

  protected override launch(forwarding: Forwarding): void {
    forwarding.begin()
    forwarding.hedge(this.hedge)
  }
}
