// The proxy handler: the exchange gets the response of a service. Here is what precedes the first attempt: an upload is
// read ahead, an endpoint picked, the breaker asked. The rest is in forwarding.ts. Runs per request.
import type { RouteTable, Service } from '../../config/compile.js'
import { IMPORTANCES } from '../../config/shedding.js'
import type { Exchange } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import { NONE } from '../../upstream/cluster/balancer.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { Upstreams } from '../../upstream/upstreams.js'
import type { Handler, HandlerContext } from '../handler.js'
import { Forwarding } from './forwarding.js'
import { type ReadAheadContext, readAhead } from './read-ahead.js'

const HIGH = IMPORTANCES.indexOf('high')
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

  constructor(context: HandlerContext, { upstreams }: ProxyParts, table: RouteTable) {
    this.context = context
    this.clusters = upstreams.clustersOf(table.services)
  }

  handlerOf(service: Service): Handler {
    return new ServiceProxy(this.context, this.clusters[service.index]!)
  }

  /** No exchange is left that could ask for an endpoint. */
  close(): void {
    for (const cluster of this.clusters) cluster.close()
  }
}

class ServiceProxy implements Handler {
  readonly needsBody = true
  private readonly context: HandlerContext
  private readonly cluster: Cluster
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
    if (exchange.upload === null || this.cluster.breaker?.isShut(this.context.nowUs())) return this.call(exchange)
    exchange.downstream.continueBody()
    readAhead(this.reading, exchange)
  }

  private call(exchange: Exchange): void {
    const { context, cluster } = this
    // An exchange that has waited for something is watched; any other is still in the turn of the loop that it came in.
    exchange.upstreamStartUs = exchange.downstream.watched ? context.nowUs() : exchange.startUs
    const endpoint = cluster.pick(0, NONE)
    if (endpoint === null) return context.fail(exchange, noEndpoint)
    if (endpoint.isFull && (exchange.route!.importance < HIGH || endpoint.isFullForAll)) {
      return context.fail(exchange, queueFull)
    }
    exchange.endpoint = endpoint.endpoint
    const attempt = cluster.attempt(exchange.upstreamStartUs)
    if (attempt === null) {
      exchange.retryAfterSeconds = cluster.breaker!.retryAfterSeconds(context.nowUs())
      return context.fail(exchange, breakerOpen)
    }
    const forwarding = new Forwarding(context, exchange, cluster, endpoint, attempt)
    exchange.downstream.watch()
    // Where the breaker was shut when that was to be asked, and is not any more.
    exchange.downstream.continueBody()
    forwarding.begin()
  }
}
