// One endpoint of a service, as this worker reaches it: its configuration, its client, what is in flight there, whether it is up. The only place
// where these are kept. Runs per request. It knows no request and no other endpoint; cluster.ts chooses among several.
import type { Dispatcher } from 'undici'
import type { Endpoint, Service } from '../config/compile.js'
import type { HealthTable } from '../state/health-table.js'
import { type PlaceWaiter, UploadPlaces } from './upload-places.js'

/** Requests that wait for a connection to one endpoint, per worker, as Envoy's max_pending_requests. */
const MAX_PENDING = 1024

export class EndpointState {
  /** As the newest generation that has this endpoint configures it: a service that was renamed has another slot in the health table. */
  endpoint: Endpoint
  readonly client: Dispatcher
  /** Requests that were given to the client and have not ended, of all generations. */
  inFlight = 0
  /** Generations of the configuration whose services have this endpoint (upstreams.ts). */
  readonly generations = new Set<number>()
  private readonly uploads: UploadPlaces
  private readonly health: HealthTable
  /** Requests that the connections carry at once. */
  private readonly capacity: number
  private readonly most: number
  /** No service has it any more, and its client is not closed yet. */
  private retired = false

  /** @param connections most open at once */
  constructor(client: Dispatcher, service: Service, endpoint: Endpoint, health: HealthTable, connections: number) {
    this.endpoint = endpoint
    this.client = client
    this.uploads = new UploadPlaces(connections)
    this.health = health
    this.capacity = connections * service.pipelining
    this.most = connections + MAX_PENDING
  }

  /** The last health check passed, or there was none. */
  get isUp(): boolean {
    return this.health.isUp(this.endpoint.slot)
  }

  /** As many requests wait for a connection as may. */
  get isFull(): boolean {
    return this.inFlight >= this.most
  }

  /** Requests wait for a connection that those in flight have. */
  get isContended(): boolean {
    return this.uploads.anyWaits || this.inFlight > this.capacity
  }

  /** A request is given to the client; it ends with one end(). */
  begin(): void {
    this.inFlight++
  }

  end(): void {
    this.inFlight--
    if (this.retired) this.closeUnused()
  }

  // Uploads that are still coming.

  /** Few hold connections: one may begin before its read-ahead is full. */
  get mayBeginEarly(): boolean {
    return this.uploads.mayBeginEarly
  }

  /** False: the waiter is told when it has a place. Each place ends with leavePlace, as soon as the upload is complete. */
  takePlace(waiter: PlaceWaiter): boolean {
    return this.uploads.take(waiter)
  }

  leavePlace(): void {
    this.uploads.leave()
    if (this.retired) this.closeUnused()
  }

  stopWaiting(waiter: PlaceWaiter): void {
    this.uploads.stopWaiting(waiter)
    if (this.retired) this.closeUnused()
  }

  // Its end.

  /** No service has it any more: what is in flight finishes, and uploads that wait for a place; then its client closes. */
  retire(): void {
    this.retired = true
    this.closeUnused()
  }

  /** The worker ends. */
  destroy(): Promise<void> {
    return this.client.destroy()
  }

  private closeUnused(): void {
    if (this.inFlight > 0 || this.uploads.anyWaits) return
    this.retired = false
    void this.client.close()
  }
}
