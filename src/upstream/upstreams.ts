// The endpoints of all services as one generation reaches them: which one is next, how many requests each has, the client that speaks to it.
// Runs per request. Knows nothing of attempts and answers: that is forward.ts.
import type { Dispatcher } from 'undici'
import type { Endpoint, RouteTable, Service } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { HealthTable } from '../state/health-table.js'
import type { Clients, HeldClient } from './clients.js'
import { Cluster } from './cluster.js'
import type { PlaceWaiter } from './upload-places.js'

const noEndpoint = new Rejection('no_endpoint', 'no healthy endpoint')
const queueFull = new Rejection('overloaded', 'too many requests waiting for a connection')

/** Requests that wait for a connection to one endpoint, per worker, as Envoy's max_pending_requests. */
const MAX_PENDING = 1024

/** undici takes servername and does not say so in its types. */
export type UpstreamRequest = Dispatcher.DispatchOptions & { readonly servername: string }

export class Upstreams {
  /** By Service.index. */
  private readonly clusters: readonly Cluster[]
  /** By Endpoint.index. */
  private readonly held: readonly HeldClient[]
  private readonly most: number

  /** `connections`: most there are to one endpoint. */
  constructor(
    table: RouteTable,
    health: HealthTable,
    private readonly clients: Clients,
    private readonly connections: number,
    workerIndex: number,
  ) {
    this.most = connections + MAX_PENDING
    this.clusters = table.services.map((service) => new Cluster(service, health, workerIndex))
    this.held = clients.take(table.services)
  }

  /** The next endpoint for this exchange; a rejection when there is none, or none that can take it. */
  pick(exchange: Exchange): Rejection | null {
    const endpoint = this.clusters[exchange.service!.index]!.pick(exchange.endpoint)
    if (endpoint === null) return noEndpoint
    if (this.held[endpoint.index]!.inFlight >= this.most) return queueFull
    exchange.endpoint = endpoint
    return null
  }

  /** Each dispatch is ended by one release. */
  dispatch(endpoint: Endpoint, options: UpstreamRequest, handler: Dispatcher.DispatchHandler): void {
    const client = this.held[endpoint.index]!
    client.inFlight++
    client.dispatcher.dispatch(options, handler)
  }

  release(endpoint: Endpoint): void {
    this.held[endpoint.index]!.inFlight--
  }

  /** Some endpoint has few uploads that are still coming. */
  mayBeginEarly(service: Service): boolean {
    for (const { index } of service.endpoints) if (this.held[index]!.uploads.mayBeginEarly) return true
    return false
  }

  /** For an upload that is still coming. False: the waiter is told when it has a place. Each place ends with leavePlace, as soon as the upload is complete. */
  takePlace(endpoint: Endpoint, waiter: PlaceWaiter): boolean {
    return this.held[endpoint.index]!.uploads.take(waiter)
  }

  leavePlace(endpoint: Endpoint): void {
    this.held[endpoint.index]!.uploads.leave()
  }

  stopWaiting(endpoint: Endpoint, waiter: PlaceWaiter): void {
    this.held[endpoint.index]!.uploads.stopWaiting(waiter)
  }

  /** Whether requests wait for a connection to the endpoint that those in flight have. */
  isContended(service: Service, endpoint: Endpoint): boolean {
    const { inFlight, uploads } = this.held[endpoint.index]!
    return uploads.anyWaits || inFlight > this.connections * service.pipelining
  }

  /** No request is left that could ask for one. */
  close(): void {
    this.clients.release(this.held)
  }
}
