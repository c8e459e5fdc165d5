// What each balancer is for: who gets requests while endpoints differ. What all of them promise is in
// test/contract/balancers.test.ts.
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { type Balancer, NONE } from '../../../src/upstream/cluster/balancer.js'
import type { EndpointState } from '../../../src/upstream/cluster/endpoint-state.js'
import { PeakEwma } from '../../../src/upstream/cluster/ewma.js'
import { PowerOfTwo } from '../../../src/upstream/cluster/p2c.js'
import { RoundRobin } from '../../../src/upstream/cluster/round-robin.js'
import { answer, Balancing, candidatesOf, load, seeded } from '../../support/balancing.js'

let balancing: Balancing

beforeEach(() => {
  balancing = new Balancing()
})

afterEach(() => balancing.close())

function picks(balancer: Balancer, states: readonly EndpointState[], count: number): number[] {
  const candidates = candidatesOf(states)
  const counts = states.map(() => 0)
  for (let i = 0; i < count; i++) counts[states.indexOf(balancer.pick(candidates, 0, NONE)!)]!++
  return counts
}

describe('p2c', () => {
  test('of two endpoints it always asks the less busy one', () => {
    const [a, b] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    load(a, 1)
    expect(picks(new PowerOfTwo(seeded(1)), [a, b], 100)).toEqual([0, 100])
  })

  test('the busiest of several gets nothing', () => {
    const states = balancing.weighted([1, 1, 1, 1])
    load(states[2]!, 3)
    const counts = picks(new PowerOfTwo(seeded(1)), states, 3000)
    expect(counts[2]).toBe(0)
    for (const at of [0, 1, 3]) expect(counts[at]).toBeGreaterThan(900)
  })

  test('busy goes by weight', () => {
    const [light, heavy] = balancing.weighted([1, 3]) as [EndpointState, EndpointState]
    load(light, 2)
    load(heavy, 5)
    expect(picks(new PowerOfTwo(seeded(1)), [light, heavy], 100)).toEqual([0, 100])
    load(heavy, 9)
    expect(picks(new PowerOfTwo(seeded(1)), [light, heavy], 100)).toEqual([100, 0])
  })
})

describe.each<[string, weights: readonly number[], (seed: number) => Balancer]>([
  ['p2c', [2, 3, 10], (seed) => new PowerOfTwo(seeded(seed))],
  // It judges more coarsely: an idle endpoint counts as having one request.
  ['ewma', [5, 10], (seed) => new PeakEwma(seeded(seed), balancing.nowUs)],
])('%s, at endpoints that are equally fast', (_, weights, made) => {
  test.each([2, 3, 4, 8, 32])('with %i requests at a time gives a light one its share, or little less', (atOnce) => {
    for (const weight of weights) {
      const states = balancing.weighted([1, weight])
      const random = seeded(weight)
      const balancer = made(atOnce * weight)
      const candidates = candidatesOf(states)
      const inFlight: EndpointState[] = []
      let light = 0
      for (let i = 0; i < 10_000; i++) {
        if (inFlight.length === atOnce) {
          const ending = inFlight.splice(Math.floor(random() * atOnce), 1)[0]!
          ending.answered(1000)
          ending.end(0, false, false)
        }
        const state = balancer.pick(candidates, 0, NONE)!
        if (state === states[0]) light++
        state.begin(true)
        inFlight.push(state)
      }
      for (const state of inFlight) state.end(0, false, true)
      const share = 1 / (1 + weight)
      expect(light / 10_000, `weight ${weight}`).toBeLessThan(share * 1.2)
      expect(light / 10_000, `weight ${weight}`).toBeGreaterThan(share * 0.5)
    }
  })
})

describe('round-robin', () => {
  test('each in turn, from where the worker begins', () => {
    const [a, b, c] = balancing.weighted([1, 1, 1]) as [EndpointState, EndpointState, EndpointState]
    const balancer = new RoundRobin(1, seeded(1))
    const candidates = candidatesOf([a, b, c])
    expect(Array.from({ length: 5 }, () => balancer.pick(candidates, 0, NONE))).toEqual([b, c, a, b, c])
  })

  test('by weight, and the turns of a heavy one do not come in a row', () => {
    const states = balancing.weighted([5, 1, 1])
    const balancer = new RoundRobin(0, seeded(1))
    const candidates = candidatesOf(states)
    const order = Array.from({ length: 7000 }, () => states.indexOf(balancer.pick(candidates, 0, NONE)!))
    for (let from = 0; from < order.length; from += 7) {
      const round = order.slice(from, from + 7)
      expect([0, 1, 2].map((at) => round.filter((one) => one === at).length)).toEqual([5, 1, 1])
    }
    expect(order.join('')).not.toContain('00000')
  })

  test('one that was full for a while does not get all that it has missed', () => {
    const states = balancing.weighted([1, 2, 3])
    const balancer = new RoundRobin(0, seeded(1))
    const candidates = candidatesOf(states)
    load(states[2]!, 2000)
    for (let i = 0; i < 900; i++) expect(balancer.pick(candidates, 0, NONE)).not.toBe(states[2])
    load(states[2]!, 0)
    const counts = states.map(() => 0)
    for (let i = 0; i < 60; i++) counts[states.indexOf(balancer.pick(candidates, 0, NONE)!)]!++
    expect(counts[2]).toBeLessThanOrEqual(32)
  })

  test('weights that change do not begin the round anew', () => {
    const states = balancing.weighted([3, 2])
    const balancer = new RoundRobin(0, seeded(1))
    const counts = [0, 0]
    // A slow start changes them all the time: here more often than requests come.
    const candidates = candidatesOf(states)
    for (let i = 0; i < 500; i++) {
      candidates.weigh([3, 2 - (i % 2) / 1000])
      counts[states.indexOf(balancer.pick(candidates, 0, NONE)!)]!++
    }
    expect(counts[1]).toBeGreaterThan(190)
    expect(counts[1]).toBeLessThan(210)
  })
})

describe('ewma', () => {
  const made = (seed = 1): PeakEwma => new PeakEwma(seeded(seed), balancing.nowUs)
  /** The balancer takes note of what has been answered when it compares. */
  function measured(balancer: PeakEwma, latencies: ReadonlyMap<EndpointState, number>): void {
    const candidates = candidatesOf([...latencies.keys()])
    balancer.pick(candidates, 0, NONE)
    for (const [state, latencyUs] of latencies) answer(state, latencyUs)
    known = candidates
  }
  let known: ReturnType<typeof candidatesOf>
  const counted = (balancer: PeakEwma, count: number): number[] => {
    const counts = known.states.map(() => 0)
    for (let i = 0; i < count; i++) counts[known.states.indexOf(balancer.pick(known, 0, NONE)!)]!++
    return counts
  }

  test('of two idle endpoints it asks the faster one', () => {
    const [slow, fast] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    const balancer = made()
    measured(
      balancer,
      new Map([
        [slow, 50_000],
        [fast, 5000],
      ]),
    )
    expect(counted(balancer, 100)).toEqual([0, 100])
  })

  test('the slower one where the faster one has more in flight than it is faster', () => {
    const [slow, fast] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    const balancer = made()
    measured(
      balancer,
      new Map([
        [slow, 50_000],
        [fast, 5000],
      ]),
    )
    load(fast, 8)
    expect(counted(balancer, 100)).toEqual([0, 100])
    load(fast, 12)
    expect(counted(balancer, 100)).toEqual([100, 0])
  })

  test('one slower response is believed at once, faster ones by and by', () => {
    const [a, b] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    const balancer = made()
    measured(
      balancer,
      new Map([
        [a, 10_000],
        [b, 10_000],
      ]),
    )
    counted(balancer, 1)
    answer(a, 200_000)
    expect(counted(balancer, 50)).toEqual([0, 50])
    answer(a, 1000)
    answer(b, 10_000)
    expect(counted(balancer, 50)).toEqual([0, 50])
  })

  test('an endpoint that was slow is tried again after a while', () => {
    const [a, b] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    const balancer = made()
    measured(
      balancer,
      new Map([
        [a, 500_000],
        [b, 10_000],
      ]),
    )
    expect(counted(balancer, 50)).toEqual([0, 50])
    let seconds = 0
    for (; seconds < 60 && counted(balancer, 10)[0] === 0; seconds++) {
      balancing.aheadUs += 1e6
      answer(b, 10_000)
    }
    expect(seconds).toBeGreaterThan(5)
    expect(seconds).toBeLessThan(40)
  })

  test('failing fast attracts no requests', () => {
    const [broken, fine] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    const balancer = made()
    measured(
      balancer,
      new Map([
        [broken, 10_000],
        [fine, 10_000],
      ]),
    )
    answer(broken, 100, true)
    expect(counted(balancer, 50)).toEqual([0, 50])
  })

  test('one that has answered nothing yet gets its share, and not all', () => {
    const [known, fresh] = balancing.weighted([1, 1]) as [EndpointState, EndpointState]
    const balancer = made()
    const candidates = candidatesOf([known, fresh])
    balancer.pick(candidates, 0, NONE)
    answer(known, 10_000)
    load(fresh, 2)
    for (let i = 0; i < 50; i++) expect(balancer.pick(candidates, 0, NONE)).toBe(known)
    load(known, 3)
    for (let i = 0; i < 50; i++) expect(balancer.pick(candidates, 0, NONE)).toBe(fresh)
  })

  test('a change of the set forgets nothing of those that stay', () => {
    const [slow, fast, other] = balancing.weighted([1, 1, 1]) as [EndpointState, EndpointState, EndpointState]
    const balancer = made()
    measured(
      balancer,
      new Map([
        [slow, 500_000],
        [fast, 5000],
      ]),
    )
    counted(balancer, 1)
    balancer.pick(candidatesOf([slow, fast, other]), 0, NONE)
    const both = candidatesOf([slow, fast])
    for (let i = 0; i < 50; i++) expect(balancer.pick(both, 0, NONE)).toBe(fast)
  })
})
