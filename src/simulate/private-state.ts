// The tables of a simulation: the gateway's own, in memory of this process alone, on a clock that the simulation sets
// to the times of the log. Off the request's way.
import { breakersSection } from '../state/breaker-table.js'
import type { ClockSource } from '../state/clock.js'
import { openSegment } from '../state/open-segment.js'
import { ratesSection } from '../state/rates-section.js'
import type { Segment } from '../state/segment.js'

/** Stands still until it is set. */
export class SteppedClock implements ClockSource {
  constructor(private us: number) {}

  /** Never backwards. */
  step(us: number): void {
    if (us > this.us) this.us = us
  }

  wallUs(): number {
    return this.us
  }

  monotonicUs(): number {
    return this.us
  }

  uptimeUs(): number {
    return this.us
  }

  bootId(): string {
    return 'simulation'
  }
}

export function openPrivateState(services: number, rateLimitKeys: number, clock: SteppedClock): Segment {
  const spec = { services, rateLimitKeys }
  return openSegment([ratesSection, breakersSection], spec, { path: null, isolation: 'thread', clock })
}
