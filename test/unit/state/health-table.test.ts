import { describe, expect, it } from 'vitest'
import { HealthTable, healthBytes } from '../../../src/state/health-table.js'
import type { Segment } from '../../../src/state/segment.js'

function segmentOf(bytes: number, offset = 128): Segment {
  return { buffer: new SharedArrayBuffer(offset + bytes), section: () => ({ offset, bytes }), nowUs: () => 0 }
}

describe('health table', () => {
  it('counts an endpoint nobody has checked as up', () => {
    const table = new HealthTable(segmentOf(healthBytes(3)), 3)
    expect(table.state(1)).toBe('unknown')
    expect(table.isUp(1)).toBe(true)
  })

  it('shows what one side writes to every other side, endpoint by endpoint', () => {
    const segment = segmentOf(healthBytes(17))
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
    expect(() => new HealthTable(segmentOf(64), 17)).toThrow('health section of 64 bytes cannot hold 17 endpoints')
  })
})
