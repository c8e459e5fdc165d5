import { describe, expect, it } from 'vitest'
import { HealthTable, healthBytes } from '../../../src/state/health-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'

function segmentOf(endpoints: number): Segment {
  const spec = { workers: 1, rateLimitKeys: 64, services: 1, endpoints, routes: 1 }
  return openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
}

describe('health table', () => {
  it('counts an endpoint nobody has checked as up', () => {
    const table = new HealthTable(segmentOf(3), 3)
    expect(table.state(1)).toBe('unknown')
    expect(table.isUp(1)).toBe(true)
  })

  it('shows what one side writes to every other side, endpoint by endpoint', () => {
    const segment = segmentOf(17)
    const primary = new HealthTable(segment, 17)
    const worker = new HealthTable(segment, 17)
    primary.set(16, 'down')
    expect([0, 15, 16].map((i) => worker.isUp(i))).toEqual([true, true, false])
    primary.set(16, 'up')
    expect(worker.state(16)).toBe('up')
    expect(worker.isUp(16)).toBe(true)
  })

  it('asks for whole cache lines, and for one where there is no endpoint', () => {
    expect([0, 1, 16, 17].map(healthBytes)).toEqual([64, 64, 64, 128])
  })

  it('refuses a section that cannot hold the endpoints', () => {
    expect(() => new HealthTable(segmentOf(16), 17)).toThrow('health section of 64 bytes cannot hold 17 endpoints')
  })
})
