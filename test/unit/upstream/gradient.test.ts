// The adaptive limit against a simulated service: so many requests at a time, the others queue inside of it.
import { describe, expect, it } from 'vitest'
import { Gradient } from '../../../src/upstream/gradient.js'

const LOOK_US = 25_000

interface Conditions {
  /** Requests that the service works on at once. */
  places: number
  /** What it takes for one, in microseconds. */
  serviceUs: number
  /** Standard deviation of that, as a share. */
  noise: number
  /** Requests offered per second. */
  rate: number
}

/** mulberry32 */
function randomOf(seed: number): () => number {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }
}

/** A service, its clients and the limit between them. */
class Simulation {
  readonly record = new Float64Array(16)
  readonly latencies: number[] = []
  limits: number[] = []
  done = 0
  private readonly gradient = new Gradient(this.record)
  private nowUs = 1e9
  private lookUs = this.nowUs
  private sumUs = 0
  private count = 0
  private owed = 0
  private readonly running: { sinceUs: number; endUs: number }[] = []
  private readonly queue: number[] = []
  private readonly random: () => number

  constructor(
    readonly now: Conditions,
    private readonly rules = { start: 20, least: 1, tolerance: 1.5 },
    seed = 1,
  ) {
    this.random = randomOf(seed)
  }

  get limit(): number {
    return Math.floor(this.record[0] || this.rules.start)
  }

  /** Forgets what it has counted and runs for so long. */
  run(seconds: number): { goodput: number; p99Ms: number; lowest: number } {
    this.latencies.length = 0
    this.done = 0
    this.limits = []
    const untilUs = this.nowUs + seconds * 1e6
    while (this.nowUs < untilUs) this.step(Math.min(1000, this.now.serviceUs / 20))
    const sorted = this.latencies.sort((a, b) => a - b)
    return {
      goodput: this.done / seconds,
      p99Ms: (sorted[Math.floor(sorted.length * 0.99)] ?? 0) / 1000,
      lowest: Math.min(...this.limits),
    }
  }

  private step(us: number): void {
    this.nowUs += us
    const { places, rate } = this.now
    for (let i = this.running.length - 1; i >= 0; i--) {
      const { sinceUs, endUs } = this.running[i]!
      if (endUs > this.nowUs) continue
      this.running.splice(i, 1)
      this.sumUs += this.nowUs - sinceUs
      this.count++
      this.done++
      this.latencies.push(this.nowUs - sinceUs)
    }
    // Arrivals come at random; those beyond the limit are refused.
    this.owed += (rate * us) / 1e6
    while (this.owed > this.random()) {
      this.owed--
      if (this.running.length + this.queue.length < this.limit) this.queue.push(this.nowUs)
    }
    while (this.running.length < places && this.queue.length > 0) {
      this.running.push({ sinceUs: this.queue.shift()!, endUs: this.nowUs + this.takes() })
    }
    if (this.nowUs < this.lookUs) return
    this.lookUs = this.nowUs + LOOK_US
    if (this.gradient.isDue(this.nowUs)) {
      const inFlight = this.running.length + this.queue.length
      this.gradient.look(this.nowUs, this.sumUs, this.count, inFlight, this.rules, 1000)
    }
    this.limits.push(this.limit)
  }

  /** Log-normal around the mean. */
  private takes(): number {
    const { serviceUs, noise } = this.now
    if (noise === 0) return serviceUs
    const normal = Math.sqrt(-2 * Math.log(1 - this.random())) * Math.cos(2 * Math.PI * this.random())
    return serviceUs * Math.exp(noise * normal - (noise * noise) / 2)
  }
}

const capacityOf = ({ places, serviceUs }: Conditions): number => (places * 1e6) / serviceUs

/** Three times what the service can do. */
function overloaded(places: number, serviceMs: number, noise = 0): Conditions {
  const conditions = { places, serviceUs: serviceMs * 1000, noise, rate: 0 }
  return { ...conditions, rate: 3 * capacityOf(conditions) }
}

describe('an overload of three times the capacity', () => {
  it.each([
    [1, 20],
    [2, 10],
    [4, 50],
    [10, 20],
    [40, 5],
    [100, 30],
    [300, 100],
  ])('%i at a time, %i ms each: goodput and p99 stay near those of an unloaded service', (places, serviceMs) => {
    const simulation = new Simulation(overloaded(places, serviceMs))
    simulation.run(15)
    const { goodput, p99Ms } = simulation.run(30)
    expect(goodput).toBeGreaterThan(0.9 * capacityOf(simulation.now))
    // What one request takes in steps of the simulation.
    expect(p99Ms).toBeLessThan(2 * serviceMs + 1)
  })

  it.each([1, 2, 3])('the same where each request takes another time (%i)', (seed) => {
    const simulation = new Simulation(overloaded(20, 20, 0.5), undefined, seed)
    simulation.run(15)
    const { goodput, p99Ms } = simulation.run(30)
    expect(goodput).toBeGreaterThan(0.9 * capacityOf(simulation.now))
    // Unloaded, its p99 is 2.8 times the mean.
    expect(p99Ms).toBeLessThan(2 * 2.8 * 20)
  })
})

describe('a limit in force', () => {
  it('falls with the capacity, and rises with it', () => {
    const simulation = new Simulation(overloaded(40, 20))
    simulation.run(15)
    simulation.now.places = 10
    simulation.run(5)
    const fallen = simulation.run(10)
    expect(fallen.goodput).toBeGreaterThan(0.9 * capacityOf(simulation.now))
    expect(fallen.p99Ms).toBeLessThan(2 * 20 + 1)
    simulation.now.places = 40
    simulation.run(5)
    const risen = simulation.run(10)
    expect(risen.goodput).toBeGreaterThan(0.9 * capacityOf(simulation.now))
  })

  it('does not starve a service that becomes slower by itself, and learns when it is fast again', () => {
    const simulation = new Simulation(overloaded(20, 10))
    simulation.run(15)
    simulation.now.serviceUs = 40_000
    simulation.run(10)
    const slow = simulation.run(10)
    expect(slow.goodput).toBeGreaterThan(0.9 * capacityOf(simulation.now))
    expect(slow.p99Ms).toBeLessThan(81)
    simulation.now.serviceUs = 10_000
    simulation.run(5)
    const fast = simulation.run(10)
    expect(fast.goodput).toBeGreaterThan(0.9 * capacityOf(simulation.now))
    expect(fast.p99Ms).toBeLessThan(21)
  })

  it('stays where it is while little of it is used, and refuses nothing of what the service can do', () => {
    const simulation = new Simulation({ places: 50, serviceUs: 20_000, noise: 0.3, rate: 200 })
    const { goodput } = simulation.run(60)
    expect(goodput).toBeGreaterThan(0.99 * 200)
    expect(simulation.limit).toBeGreaterThanOrEqual(5)
    expect(simulation.limit).toBeLessThanOrEqual(50)
  })

  it('never falls below 1, and finds its way back from there', () => {
    const simulation = new Simulation(overloaded(30, 10))
    simulation.run(10)
    simulation.now.serviceUs = 2_000_000
    expect(simulation.run(60).lowest).toBeGreaterThanOrEqual(1)
    expect(simulation.done).toBeGreaterThan(0)
    simulation.now.serviceUs = 10_000
    simulation.run(20)
    expect(simulation.run(10).goodput).toBeGreaterThan(0.9 * capacityOf(simulation.now))
  })

  it('keeps to its bounds', () => {
    const simulation = new Simulation(overloaded(1, 10), { start: 8, least: 4, tolerance: 1.5 })
    expect(simulation.run(20).lowest).toBeGreaterThanOrEqual(4)
  })
})
