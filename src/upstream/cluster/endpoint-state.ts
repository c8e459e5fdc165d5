// One endpoint of a service in this worker: its configuration, its client, the requests in flight, and whether it gets
// more. These are kept nowhere else. Runs per request. It knows no request and no other endpoint; cluster.ts chooses
// one of several.
import type { Dispatcher } from 'undici'
import type { Endpoint, Service } from '../../config/compile.js'
import { type EndpointTable, OUT } from '../../state/endpoint-table.js'
import { LeanPool } from '../http1/pool.js'
import { type PlaceWaiter, UploadPlaces } from '../upload-places.js'
import type { Outliers } from './outliers.js'

/** Requests that wait for a connection to one endpoint, per worker, as Envoy's max_pending_requests. */
const MAX_PENDING = 1024
/** As many requests of high importance may wait besides. */
const MAX_PENDING_HIGH = 256

/** What the worker gives the states of all endpoints. */
export interface EndpointParts {
  /** Most connections to one endpoint. */
  readonly connections: number
  readonly endpoints: EndpointTable
  /** The worker's slot in that table. */
  readonly worker: number
  /** Microseconds on the segment's clock. */
  readonly nowUs: () => number
}

export class EndpointState {
  /**
   * As the newest generation has it. Its slot in the endpoint table changes when the service is renamed.
   */
  endpoint: Endpoint
  readonly client: Dispatcher
  /** Requests that were given to the client and have not ended, of all generations. */
  inFlight = 0
  /** Those of them that wait for the head of their response. Uploads do not count: they may wait for their client. */
  waiting = 0
  /** As the newest generation has it; null where its service ejects none. */
  private outliers: Outliers | null = null
  /** From where on a response counts as slow. */
  private slowUs = Number.POSITIVE_INFINITY
  /** The generations of the configuration that use it (upstreams.ts). */
  readonly generations = new Set<number>()
  private readonly uploads: UploadPlaces
  private readonly table: EndpointTable
  private readonly worker: number
  private readonly nowUs: () => number
  /** How many requests the connections carry at once. */
  private readonly capacity: number
  private readonly most: number
  /** No service has it any more, and its client is not closed yet. */
  private retired = false

  constructor(client: Dispatcher, service: Service, endpoint: Endpoint, parts: EndpointParts) {
    const { connections } = parts
    this.endpoint = endpoint
    this.client = client
    this.uploads = new UploadPlaces(connections)
    this.table = parts.endpoints
    this.worker = parts.worker
    this.nowUs = parts.nowUs
    this.capacity = connections * service.pipelining
    this.most = connections + MAX_PENDING
  }

  /** It gets no requests: its health checks have found it down, say (state/endpoint-table.ts). */
  get isOut(): boolean {
    const out = this.table.out(this.endpoint.slot)
    return out !== 0 && this.isOutBy(out)
  }

  private isOutBy(out: number): boolean {
    if ((out & (OUT.down | OUT.drained)) !== 0) return true
    // Of an older generation, in another worker: nobody ends it, where the service ejects no more.
    if (this.outliers === null) return false
    return (out & OUT.ejected) !== 0 || !this.outliers.admitsOne(this.endpoint.slot)
  }

  /** A request that waits there had better be sent to another one, too. A drained one finishes its requests. */
  get isFailing(): boolean {
    const out = this.table.out(this.endpoint.slot)
    return (out & OUT.down) !== 0 || (this.outliers !== null && (out & OUT.ejected) !== 0)
  }

  /** The same where too few endpoints are left: then only an operator keeps requests away. */
  get isOutInPanic(): boolean {
    return this.isDrained
  }

  /** Its health checks have found it down. */
  get isDown(): boolean {
    return (this.table.out(this.endpoint.slot) & OUT.down) !== 0
  }

  // What has ended at it in this worker, since ever.

  /** Until the heads of its responses. */
  get latencySumUs(): number {
    return this.table.latencySumUs(this.worker, this.endpoint.slot)
  }

  /** Responses in that sum. */
  get latencies(): number {
    return this.table.latencies(this.worker, this.endpoint.slot)
  }

  get failures(): number {
    return this.table.failures(this.worker, this.endpoint.slot)
  }

  /** Since when it gets requests again, on the segment's clock; 0 where it has never been out. For a slow start. */
  get returnedUs(): number {
    return this.table.returnedUs(this.endpoint.slot)
  }

  /** An operator has drained it. */
  get isDrained(): boolean {
    return (this.table.out(this.endpoint.slot) & OUT.drained) !== 0
  }

  /** No more requests may wait for a connection to it. */
  get isFull(): boolean {
    return this.inFlight >= this.most
  }

  /** Not even those of high importance. */
  get isFullForAll(): boolean {
    return this.inFlight >= this.most + MAX_PENDING_HIGH
  }

  /** How many requests wait for a connection to it. */
  get queued(): number {
    return Math.max(0, this.inFlight - this.capacity)
  }

  /** Requests wait until others give back their connections. */
  get isContended(): boolean {
    return this.uploads.anyWaits || this.inFlight > this.capacity
  }

  /** From now on it is configured so. What is in flight goes with it to another slot. */
  use(endpoint: Endpoint, outliers: Outliers | null): void {
    const { slot } = this.endpoint
    if (endpoint.slot !== slot) this.table.move(this.worker, slot, endpoint.slot, this.inFlight, this.waiting)
    this.endpoint = endpoint
    this.outliers = outliers
    if (outliers !== null) return
    this.slowUs = Number.POSITIVE_INFINITY
    this.table.setOut(endpoint.slot, OUT.ejected | OUT.probation, false)
  }

  /** Every 100 ms, where its service ejects endpoints: takes over what some worker has judged. */
  heedJudgement(): void {
    this.slowUs = this.table.slowUs(this.endpoint.slot)
  }

  /** A response with this status is a failure of the endpoint. */
  isFailure(status: number): boolean {
    return status >= 400 && (this.outliers?.rules.statuses?.has(status) ?? status >= 500)
  }

  /**
   * Call it as a request is given to the client, and end() once when that request is over.
   * @param waits the whole request is there, so that it waits for nobody but the endpoint
   */
  begin(waits: boolean): void {
    this.inFlight++
    if (waits) this.waiting++
    this.table.begin(this.worker, this.endpoint.slot, waits)
  }

  /** The head of the response has come that was waited for. */
  answered(latencyUs: number): void {
    this.waiting--
    this.table.answered(this.worker, this.endpoint.slot, latencyUs, latencyUs > this.slowUs)
  }

  /**
   * @param startUs when it began
   * @param failed it is to blame
   * @param waits no head has come that was waited for
   */
  end(startUs: number, failed: boolean, waits: boolean): void {
    const { slot } = this.endpoint
    this.inFlight--
    if (waits) this.waiting--
    // Whoever gave up the request, the endpoint was slow.
    const isSlow = waits && this.slowUs !== Number.POSITIVE_INFINITY && this.nowUs() - startUs > this.slowUs
    this.table.end(this.worker, slot, failed, waits, isSlow)
    if (failed) this.outliers?.failed(slot, startUs, this.nowUs())
    if (this.retired) this.closeUnused()
  }

  // Uploads that are still coming.

  /** Few of them hold connections, so that another one may begin before its read-ahead is full. */
  get mayBeginEarly(): boolean {
    return this.uploads.mayBeginEarly
  }

  /**
   * False: the waiter is called when it gets a place. Each place is given back by leavePlace, as soon as the upload is
   * complete.
   */
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

  /**
   * Drained endpoints are stopped by somebody, who may wait for their connections to end. undici's pools cannot close
   * them; they do so by themselves when a connection has been idle for some seconds.
   */
  closeUnusedIfDrained(): void {
    if (this.isDrained && this.client instanceof LeanPool) this.client.closeUnused()
  }

  /**
   * No service has it any more. Requests in flight finish, and so do uploads that wait for a place. Then its client
   * closes.
   */
  retire(): void {
    // Its slot may soon be another endpoint's, which must not get the blame for what ends here.
    this.use({ ...this.endpoint, slot: this.table.nowhere }, null)
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
