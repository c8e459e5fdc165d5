// The proxy handler: the exchange gets the response of a service. Here is what precedes the first attempt: an upload is read ahead, an
// endpoint picked, the breaker asked. The rest is in forward.ts. Runs per request.
import type { RouteTable, Service } from '../../config/compile.js'
import type { Exchange } from '../../exchange/exchange.js'
import { Rejection } from '../../exchange/outcome.js'
import type { BreakerTable } from '../../state/breaker-table.js'
import type { HealthTable } from '../../state/health-table.js'
import type { Logger } from '../../telemetry/log.js'
import { Breaker, OUTCOME } from '../../upstream/breaker.js'
import type { Clients } from '../../upstream/clients.js'
import { Upstreams } from '../../upstream/upstreams.js'
import type { Handler, HandlerContext } from '../handler.js'
import { type ForwardContext, forward } from './forward.js'
import { type ReadAheadContext, readAhead } from './read-ahead.js'

const breakerOpen = new Rejection('breaker_open', 'breaker open')

/** What the services of one generation are reached with. */
export interface ProxyParts {
  /** Of permits in the breaker table (state/owners.ts). */
  readonly owner: number
  readonly breakers: BreakerTable
  readonly health: HealthTable
  readonly clients: Clients
  /** Most connections to one endpoint. */
  readonly connections: number
  readonly log: Logger
}

/** The services of one generation: their endpoints and breakers, shared by the handlers of all routes. */
export class Proxies {
  readonly upstreams: Upstreams
  /** By Service.index; null where the service has none. */
  readonly breakers: readonly (Breaker | null)[]
  readonly context: HandlerContext
  readonly forwarding: ForwardContext

  constructor(context: HandlerContext, parts: ProxyParts, table: RouteTable) {
    const { owner, log } = parts
    this.context = context
    this.upstreams = new Upstreams(table, parts.health, parts.clients, parts.connections, owner)
    this.breakers = table.services.map((service) => {
      if (service.breaker === null) return null
      const breaker = new Breaker(parts.breakers, service, owner)
      breaker.onChange = (change) => log.warn({ service: service.name, ...change }, 'breaker changed state')
      return breaker
    })
    const { upstreams, breakers } = this
    const { deadlines, nowUs, conclude, fail: refuse } = context
    this.forwarding = { upstreams, breakers, deadlines, nowUs, conclude, refuse }
  }

  handlerOf(service: Service): Handler {
    return new ServiceProxy(this, service)
  }

  /** Of an exchange that ends before its forwarding holds the permit. */
  giveBackPermit(exchange: Exchange): void {
    const permit = exchange.breakerPermit
    exchange.breakerPermit = -1
    if (permit >= 0) {
      this.breakers[exchange.service!.index]?.report(permit, OUTCOME.ignored, this.context.nowUs())
    }
  }

  /** No exchange is left that could ask for an endpoint. */
  close(): void {
    this.upstreams.close()
  }
}

class ServiceProxy implements Handler {
  private readonly all: Proxies
  private readonly service: Service
  private readonly breaker: Breaker | null
  private readonly reading: ReadAheadContext

  constructor(all: Proxies, service: Service) {
    this.all = all
    this.service = service
    this.breaker = all.breakers[service.index] ?? null
    const { deadlines, nowUs, fail: refuse } = all.context
    this.reading = {
      deadlines,
      nowUs,
      mayBeginEarly: (service) => all.upstreams.mayBeginEarly(service),
      begin: (exchange) => this.call(exchange),
      refuse,
    }
  }

  handle(exchange: Exchange): void {
    exchange.service = this.service
    exchange.endpoint = null
    if (exchange.upload === null || this.breaker?.isShut(this.all.context.nowUs())) return this.call(exchange)
    exchange.downstream.continueBody()
    readAhead(this.reading, exchange)
  }

  private call(exchange: Exchange): void {
    const { context, upstreams, forwarding } = this.all
    // An exchange that has waited for something is watched; any other is still in the turn of the loop that it came in.
    exchange.upstreamStartUs = exchange.downstream.watched ? context.nowUs() : exchange.startUs
    const refused = upstreams.pick(exchange) ?? this.askBreaker(exchange)
    if (refused !== null) return context.fail(exchange, refused)
    context.watch(exchange)
    // Where the breaker was shut when that was to be asked, and is not any more.
    exchange.downstream.continueBody()
    forward(forwarding, exchange)
  }

  private askBreaker(exchange: Exchange): Rejection | null {
    const { breaker } = this
    if (breaker === null) return null
    exchange.breakerPermit = breaker.admit(exchange.upstreamStartUs)
    if (exchange.breakerPermit >= 0) return null
    exchange.retryAfterSeconds = breaker.retryAfterSeconds(this.all.context.nowUs())
    return breakerOpen
  }
}
