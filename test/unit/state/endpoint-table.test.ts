import { describe, expect, it } from 'vitest'
import { EndpointTable, endpointBytes, endpointsSection, OUT } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'

const WORKERS = 2

function segmentOf(endpoints: number): Segment {
  const spec = { workers: WORKERS, rateLimitKeys: 64, services: 1, endpoints, routes: 1 }
  return openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
}

const tableOf = (segment: Segment, endpoints: number) => new EndpointTable(segment, { endpoints, workers: WORKERS })

describe('endpoint table', () => {
  it('counts an endpoint nobody has checked as up', () => {
    const table = tableOf(segmentOf(3), 3)
    expect(table.health(1)).toBe('unknown')
    expect(table.out(1)).toBe(0)
  })

  it('shows what one side writes to every other side, endpoint by endpoint', () => {
    const segment = segmentOf(17)
    const primary = tableOf(segment, 17)
    const worker = tableOf(segment, 17)
    primary.setHealth(16, 'down')
    expect([0, 15, 16].map((i) => worker.out(i))).toEqual([0, 0, OUT.down])
    primary.setHealth(16, 'up')
    expect(worker.health(16)).toBe('up')
    expect(worker.out(16)).toBe(0)
  })

  it('keeps the reasons why an endpoint is out apart', () => {
    const table = tableOf(segmentOf(2), 2)
    table.setHealth(1, 'down')
    table.setOut(1, OUT.drained, true)
    table.setHealth(1, 'up')
    expect(table.out(1)).toBe(OUT.drained)
    table.setOut(1, OUT.drained, false)
    expect(table.out(1)).toBe(0)
  })

  it('adds up what the workers count, and drops what a dead one had in flight', () => {
    const segment = segmentOf(2)
    const table = tableOf(segment, 2)
    for (const worker of [0, 1]) {
      table.begin(worker, 1, true)
      table.begin(worker, 1, true)
      table.begin(worker, 1, false)
      table.answered(worker, 1, 1000, worker === 0)
      table.end(worker, 1, worker === 1, false, false)
    }
    const sums = { attempts: 2, failures: 1, latencyUs: 2000, latencies: 2, slow: 1 }
    expect(table.totals(1)).toEqual({ ...sums, inFlight: 4, waiting: 2 })
    endpointsSection.release!(segment, 1)
    expect(table.totals(1)).toEqual({ ...sums, inFlight: 2, waiting: 1 })
    expect(table.totals(0).attempts).toBe(0)
    table.clear(1)
    expect(table.totals(1)).toEqual({
      attempts: 0,
      failures: 0,
      latencyUs: 0,
      latencies: 0,
      inFlight: 0,
      waiting: 0,
      slow: 0,
    })
  })

  it('moves what is in flight with the endpoint', () => {
    const table = tableOf(segmentOf(2), 2)
    for (const slot of [0, 0, 0, 1]) table.begin(0, slot, true)
    table.move(0, 0, 1, 2, 2)
    expect([0, 1].map((slot) => table.totals(slot).inFlight)).toEqual([1, 3])
    expect([0, 1].map((slot) => table.totals(slot).waiting)).toEqual([1, 3])
  })

  it('knows since when an endpoint gets requests again', () => {
    const table = tableOf(segmentOf(2), 2)
    table.setHealth(1, 'up')
    expect(table.returnedUs(1)).toBe(0)
    table.setHealth(1, 'down')
    table.setOut(1, OUT.drained, true)
    table.setHealth(1, 'up')
    expect(table.returnedUs(1)).toBe(0)
    table.setOut(1, OUT.drained, false)
    expect(table.returnedUs(1)).toBeGreaterThan(0)
  })

  it('refuses a section that cannot hold the endpoints', () => {
    const bytes = endpointBytes({ endpoints: 16, workers: WORKERS })
    expect(() => tableOf(segmentOf(16), 17)).toThrow(
      `endpoints section of ${bytes} bytes cannot hold 17 endpoints (${endpointBytes({ endpoints: 17, workers: WORKERS })} bytes)`,
    )
  })
})
