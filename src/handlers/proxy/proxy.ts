// The proxy handler: the exchange gets the response of a service. Here is what precedes the first attempt: an upload is read ahead, an
// endpoint picked, the breaker asked. The rest is in forward.ts. Runs per request.
import type { RouteTable, Service } from '../../config/compile.js'
import { askForBody } from '../../downstream/uws/gate.js'
import type { Exchange } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import { OUTCOME } from '../../upstream/breaker.js'
import type { Cluster } from '../../upstream/cluster.js'
import type { Upstreams } from '../../upstream/upstreams.js'
import type { Handler, HandlerContext } from '../handler.js'
import { type ForwardContext, forward } from './forward.js'
import { type ReadAheadContext, readAhead } from './read-ahead.js'

const noEndpoint = new Rejection('no_endpoint', 'no healthy endpoint')
const queueFull = new Rejection('overloaded', 'too many requests waiting for a connection')
const breakerOpen = new Rejection('breaker_open', 'breaker open')

/** What the worker gives the proxy handlers of each generation. */
export interface ProxyParts {
  readonly upstreams: Upstreams
}

/** The services of one generation, shared by the handlers of all routes. */
export class Proxies {
  /** By Service.index. */
  readonly clusters: readonly Cluster[]
  readonly context: HandlerContext
  readonly forwarding: ForwardContext

  constructor(context: HandlerContext, { upstreams }: ProxyParts, table: RouteTable) {
    this.context = context
    this.clusters = upstreams.clustersOf(table.services)
    const { deadlines, nowUs, conclude, fail: refuse } = context
    this.forwarding = { deadlines, nowUs, conclude, refuse }
  }

  handlerOf(service: Service): Handler {
    return new ServiceProxy(this, this.clusters[service.index]!)
  }

  /** Of an exchange that ends before its forwarding holds the permit. */
  giveBackPermit(exchange: Exchange): void {
    const permit = exchange.breakerPermit
    exchange.breakerPermit = -1
    if (permit >= 0) {
      this.clusters[exchange.service!.index]?.breaker?.report(permit, OUTCOME.ignored, this.context.nowUs())
    }
  }

  /** No exchange is left that could ask for an endpoint. */
  close(): void {
    for (const cluster of this.clusters) cluster.close()
  }
}

class ServiceProxy implements Handler {
  private readonly all: Proxies
  private readonly cluster: Cluster
  private readonly reading: ReadAheadContext

  constructor(all: Proxies, cluster: Cluster) {
    this.all = all
    this.cluster = cluster
    const { deadlines, nowUs, fail: refuse } = all.context
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
    if (exchange.upload === null || this.cluster.breaker?.isShut(this.all.context.nowUs())) return this.call(exchange)
    askForBody(exchange)
    readAhead(this.reading, exchange)
  }

  private call(exchange: Exchange): void {
    const { context, forwarding } = this.all
    // An exchange that has waited for something is watched; any other is still in the turn of the loop that it came in.
    exchange.upstreamStartUs = exchange.watched ? context.nowUs() : exchange.startUs
    const endpoint = this.cluster.pick(null)
    if (endpoint === null) return context.fail(exchange, noEndpoint)
    if (endpoint.isFull) return context.fail(exchange, queueFull)
    exchange.endpoint = endpoint.endpoint
    const refused = this.askBreaker(exchange)
    if (refused !== null) return context.fail(exchange, refused)
    context.watch(exchange)
    // Where the breaker was shut when that was to be asked, and is not any more.
    askForBody(exchange)
    forward(forwarding, exchange, this.cluster, endpoint)
  }

  private askBreaker(exchange: Exchange): Rejection | null {
    const { breaker } = this.cluster
    if (breaker === null) return null
    exchange.breakerPermit = breaker.admit(exchange.upstreamStartUs)
    if (exchange.breakerPermit >= 0) return null
    exchange.retryAfterSeconds = breaker.retryAfterSeconds(this.all.context.nowUs())
    return breakerOpen
  }
}
