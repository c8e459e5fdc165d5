import { expect, it } from 'vitest'
import { compileHedge } from '../../../src/config/hedge.js'
import { hedgeSchema } from '../../../src/config/schema/hedge.js'
import { Hedge } from '../../../src/upstream/hedge.js'

const of = (config: object): Hedge => new Hedge(compileHedge(hedgeSchema.parse(config))!, 0)

function observe(hedge: Hedge, responses: number, us: (i: number) => number): void {
  for (let i = 0; i < responses; i++) hedge.observe(us(i))
}

it('waits for a time', () => {
  const hedge = of({ after: '50ms' })
  observe(hedge, 1000, () => 1e6)
  expect(hedge.delayMs).toBe(50)
})

it('waits for a percentile, once that is known', () => {
  const hedge = of({})
  observe(hedge, 63, () => 10_000)
  expect(hedge.delayMs).toBe(Number.POSITIVE_INFINITY)
  // One in ten takes 200 ms.
  observe(hedge, 577, (i) => (i % 10 === 0 ? 200_000 : 10_000))
  expect(hedge.delayMs).toBeGreaterThan(190)
  expect(hedge.delayMs).toBeLessThan(215)
})

it.each([
  ['p50', 10],
  ['p99.9', 500],
])('%s', (after, ms) => {
  const hedge = of({ after })
  observe(hedge, 2000, (i) => (i % 100 === 0 ? 500_000 : 10_000))
  expect(hedge.delayMs).toBeGreaterThan(ms * 0.95)
  expect(hedge.delayMs).toBeLessThan(ms * 1.1)
})

it('goes by the responses of late', () => {
  const hedge = of({ after: 'p90' })
  observe(hedge, 10_000, () => 1e6)
  observe(hedge, 20_000, () => 5000)
  expect(hedge.delayMs).toBeLessThan(6)
})

it('is never 0: timers have whole milliseconds', () => {
  const hedge = of({})
  observe(hedge, 64, () => 3)
  expect(hedge.delayMs).toBe(1)
})

it.each([
  ['p49', 'must be p50 to p99.9'],
  ['p100', 'is neither a percentile nor a duration; write p95 or 50ms'],
  ['2h', 'must be between 1ms and 1h'],
  ['0ms', 'must be between 1ms and 1h'],
])('after: %s is refused', (after, message) => {
  const { error } = hedgeSchema.safeParse({ after })
  expect(error?.issues.map((issue) => issue.message)).toEqual([message])
})
