// Whom one exchange waits for, its service or its client, and until when. What the service takes is on its clock; a
// client that holds an upstream connection has a pace to keep while others wait for that. Runs per request.
import type { Service } from '../../config/compile.js'
import type { ClientDeadline } from '../../exchange/client-deadline.js'
import { ServiceClock } from './service-clock.js'

/** A client that keeps the gateway waiting for so long in all before it sends or takes so many bytes is slow. */
const SLOW_US = 5e6
const SLOW_BYTES = 65_536

export class Patience {
  readonly clock: ServiceClock
  private readonly service: Service
  /** The client's own deadline, which runs on while the client is slow; Infinity for none. */
  private readonly untilUs: number
  private clientUntilUs = Number.POSITIVE_INFINITY
  /** When the client's pace is looked at next. */
  private paceAtUs = 0
  // What had been moved both ways, and what had been waited for the client, when its pace was found good.
  private pacedBytes = 0
  private pacedUs = 0

  constructor(service: Service, nowUs: number, deadline: ClientDeadline | null) {
    this.clock = new ServiceClock(nowUs)
    this.service = service
    this.untilUs = deadline === null ? Number.POSITIVE_INFINITY : deadline.untilUs
  }

  /** The deadline of a service that has so long for its next byte, and for all of them its total. */
  withService(nowUs: number, waitMs: number): number {
    this.clock.waitForService(nowUs)
    return Math.min(this.untilUs, nowUs + Math.min(waitMs * 1000, this.leftOfTotalUs(nowUs)))
  }

  /** What the service may still take in all. */
  leftOfTotalUs(nowUs: number): number {
    return this.service.totalTimeoutMs * 1000 - this.clock.spent(nowUs)
  }

  isDeadlineOver(nowUs: number): boolean {
    return nowUs >= this.untilUs
  }

  isTotalOver(nowUs: number): boolean {
    // To the microsecond: sums of times are rounded.
    return this.clock.spent(nowUs) + 1 >= this.service.totalTimeoutMs * 1000
  }

  /** The deadline of a client that is given up at `untilUs`: then, or when its pace is to be looked at. */
  withClient(nowUs: number, untilUs: number): number {
    this.clock.waitForClient(nowUs)
    this.clientUntilUs = untilUs
    return Math.min(untilUs, this.paceAtUs, this.untilUs)
  }

  isClientLate(nowUs: number): boolean {
    return nowUs >= this.clientUntilUs
  }

  /** @param bytes moved so far, both ways */
  isClientSlow(nowUs: number, bytes: number): boolean {
    if (bytes - this.pacedBytes >= SLOW_BYTES) this.beginPace(nowUs, bytes)
    const leftUs = this.pacedUs + SLOW_US - this.clock.waited(nowUs)
    this.paceAtUs = nowUs + Math.max(0, leftUs)
    return leftUs <= 0
  }

  /** What was waited for before does not count: nothing was held. */
  beginPace(nowUs: number, bytes: number): void {
    this.pacedBytes = bytes
    this.pacedUs = this.clock.waited(nowUs)
  }

  /** It goes on as it was. */
  get clientDeadlineUs(): number {
    return Math.min(this.clientUntilUs, this.paceAtUs, this.untilUs)
  }
}
