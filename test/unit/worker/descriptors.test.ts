import { describe, expect, it } from 'vitest'
import type { Logger } from '../../../src/telemetry/log.js'
import { checkDescriptors, descriptorLimit, planDescriptors } from '../../../src/worker/descriptors.js'

const SETTINGS = { workers: 2, maxConnections: 1000, upstreamConnections: 128, hmacThreads: 1 }

describe('the plan for descriptors', () => {
  it('has room for all that the settings allow where there are enough', () => {
    const plan = planDescriptors(4096, SETTINGS, 2, 1)
    expect(plan.needed).toBeLessThan(4096)
    expect(plan.upstreams).toBe(256)
    expect(plan.room).toBeGreaterThanOrEqual(500)
  })

  it('keeps half of a short supply for upstreams, and some for the worker itself', () => {
    const { needed, room, upstreams, highestFd } = planDescriptors(200, SETTINGS, 4, 1, 30)
    expect(needed).toBe(30 + 40 + 4 * 128 + 500)
    expect([room, upstreams, highestFd]).toEqual([65, 65, 180])
  })

  it('takes a client even where there is next to nothing', () => {
    expect(planDescriptors(32, SETTINGS, 1, 1, 40).room).toBe(1)
  })

  it('divides one limit among workers that are threads', () => {
    const alone = planDescriptors(1000, SETTINGS, 1, 1, 40)
    const shared = planDescriptors(1000, SETTINGS, 1, 4, 40)
    expect(4 * (shared.room + shared.upstreams)).toBeLessThan(alone.room + alone.upstreams)
    expect(shared.needed).toBeGreaterThan(alone.needed)
  })

  it('knows no end where there is no limit', () => {
    expect(planDescriptors(Number.POSITIVE_INFINITY, SETTINGS, 1, 1)).toMatchObject({
      room: 2 ** 31 - 1,
      highestFd: 2 ** 31 - 1,
    })
  })

  it('is told of, with figures, only where the settings may need more', () => {
    const lines: [object, string][] = []
    const log = { warn: (fields: object, text: string) => lines.push([fields, text]) } as unknown as Logger
    checkDescriptors(log, { ...SETTINGS, maxConnections: 2, upstreamConnections: 1 }, 1, false)
    expect(lines).toEqual([])
    checkDescriptors(log, { ...SETTINGS, maxConnections: 2 ** 31 - 1 }, 1, false)
    expect(lines[0]![0]).toMatchObject({ limit: descriptorLimit(), endpoints: 1, workers: 2 })
    expect(lines[0]![1]).toMatch(/ulimit -n.*TIDEGATE_MAX_CONNECTIONS \(2147483647\)/)
  })
})
