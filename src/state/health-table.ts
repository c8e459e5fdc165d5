// The health of each endpoint, by Endpoint.slot. The primary's health checks write it, and every worker reads it per
// request. It begins empty with each start of the primary; an unknown endpoint counts as up (primary/health-checks.ts).
//
//   section `health`:  endpoint 0 [Int32]  endpoint 1 [Int32] …  padded to 64 bytes
//                      0 unknown, 1 up, 2 down
import type { LiveSection, Segment } from './segment.js'

const STATES = ['unknown', 'up', 'down'] as const
export type HealthState = (typeof STATES)[number]
const DOWN = STATES.indexOf('down')

/** Whole cache lines, and at least one. */
export function healthBytes(endpoints: number): number {
  return Math.max(64, Math.ceil((endpoints * 4) / 64) * 64)
}

export const healthSection: LiveSection<{ readonly endpoints: number }> = {
  name: 'health',
  kept: false,
  bytes: ({ endpoints }) => healthBytes(endpoints),
}

export class HealthTable {
  private readonly states: Int32Array

  /** @param endpoints how many slots */
  constructor(segment: Segment, endpoints: number) {
    const { buffer, offset, bytes } = segment.section(healthSection.name)
    if (bytes < endpoints * 4)
      throw new RangeError(`health section of ${bytes} bytes cannot hold ${endpoints} endpoints`)
    this.states = new Int32Array(buffer, offset, endpoints)
  }

  /** A plain read is enough: an aligned Int32 does not tear, and the state of a moment ago will do. */
  isUp(index: number): boolean {
    return this.states[index] !== DOWN
  }

  state(index: number): HealthState {
    return STATES[Atomics.load(this.states, index)] ?? 'unknown'
  }

  set(index: number, state: HealthState): void {
    Atomics.store(this.states, index, STATES.indexOf(state))
  }
}
