// The hash balancer: which endpoint has a key, what moves when endpoints come and go, and where requests go that are
// too many for one.
import { execFileSync } from 'node:child_process'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { NONE } from '../../../src/upstream/cluster/balancer.js'
import type { EndpointState } from '../../../src/upstream/cluster/endpoint-state.js'
import { HashBalancer, hashOf } from '../../../src/upstream/cluster/hash.js'
import { Balancing, candidatesOf, load, seeded } from '../../support/balancing.js'

const KEYS = Array.from({ length: 20_000 }, (_, i) => hashOf(`key-${i}`))

let balancing: Balancing

beforeEach(() => {
  balancing = new Balancing()
})

afterEach(() => balancing.close())

/** The endpoint of each key, in a worker of its own. */
function places(states: readonly EndpointState[]): EndpointState[] {
  const balancer = new HashBalancer(1.25, Math.random)
  const candidates = candidatesOf(states)
  return KEYS.map((key) => balancer.pick(candidates, key, NONE)!)
}

const moved = (before: readonly EndpointState[], after: readonly EndpointState[]): number[] =>
  KEYS.flatMap((_, at) => (before[at] === after[at] ? [] : [at]))

const many = (count: number): EndpointState[] => balancing.weighted(Array(count).fill(1))

test('the hash of a text is the same for ever', () => {
  expect(['a', 'key-1', 'consumer', 'é', 'x'.repeat(1000)].map(hashOf)).toEqual([
    444641715, 1675941015, 1274783649, -1158179223, 1841099346,
  ])
  for (const key of KEYS) expect(key).not.toBe(0)
})

test('two workers agree, in whatever order they list the endpoints, and so does another process', () => {
  const states = many(5)
  const here = places(states)
  expect(moved(here, places([...states].reverse()))).toEqual([])
  expect(moved(here, places(states))).toEqual([])
  // A restart, in which nothing is the same but the configuration.
  const script = `
    import { HashBalancer, hashOf } from ${JSON.stringify(new URL('../../../dist/src/upstream/cluster/hash.js', import.meta.url).href)}
    import { Candidates } from ${JSON.stringify(new URL('../../../dist/src/upstream/cluster/candidates.js', import.meta.url).href)}
    const states = ${JSON.stringify(states.map(({ endpoint }) => ({ endpoint, inFlight: 0, isFull: false })))}
    const candidates = new Candidates(states, states.map(() => 1))
    const balancer = new HashBalancer(1.25, Math.random)
    const origins = Array.from({ length: 1000 }, (_, i) => balancer.pick(candidates, hashOf('key-' + i), []).endpoint.origin)
    console.log(JSON.stringify(origins))`
  const there = execFileSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
  expect(JSON.parse(there)).toEqual(here.slice(0, 1000).map(({ endpoint }) => endpoint.origin))
})

describe.each([2, 3, 4, 10, 50])('of %i endpoints', (count) => {
  test('one that goes moves its own keys, about one in as many, and one that comes takes about one in as many', () => {
    const states = many(count)
    const before = places(states)
    const gone = states[count - 1]!
    const away = moved(before, places(states.slice(0, -1)))
    // Those of the one that is gone, and no other.
    expect(away).toEqual(KEYS.flatMap((_, at) => (before[at] === gone ? [at] : [])))
    expect(away.length / KEYS.length).toBeGreaterThan(0.75 / count)
    expect(away.length / KEYS.length).toBeLessThan(1.25 / count)
  })
})

test('a weight that grows takes keys from others, and moves none between them', () => {
  const states = many(4)
  const before = places(states)
  const [heavy] = states as [EndpointState]
  heavy.endpoint = { ...heavy.endpoint, weight: 3 }
  const after = places(states)
  for (const at of moved(before, after)) expect(after[at]).toBe(heavy)
  const share = after.filter((state) => state === heavy).length / KEYS.length
  expect(share).toBeGreaterThan(0.47)
  expect(share).toBeLessThan(0.53)
})

test('keys that differ little, and endpoints that do, spread as well', () => {
  const states = balancing.endpoints(Array.from({ length: 8 }, (_, i) => `http://10.0.0.${i + 1}:9000`))
  const counts = new Map<EndpointState, number>()
  for (const state of places(states)) counts.set(state, (counts.get(state) ?? 0) + 1)
  for (const state of states) expect(counts.get(state)! / KEYS.length).toBeCloseTo(1 / 8, 1.5)
})

describe('bounded load', () => {
  test.each([1, 1.25, 2])('%f: one key for all, and no endpoint has more than that many times the mean', (bounded) => {
    const states = many(4)
    const candidates = candidatesOf(states)
    const balancer = new HashBalancer(bounded, seeded(1))
    for (let inFlight = 1; inFlight <= 200; inFlight++) {
      balancer.pick(candidates, KEYS[0]!, NONE)!.begin(true)
      const most = Math.max(...states.map((state) => state.inFlight))
      expect(most).toBeLessThanOrEqual(Math.ceil((bounded * inFlight) / 4))
    }
    expect(states.reduce((sum, state) => sum + state.inFlight, 0)).toBe(200)
  })

  test('random keys that come and go: the same, and a key whose endpoint has room goes nowhere else', () => {
    const random = seeded(9)
    const states = many(5)
    const candidates = candidatesOf(states)
    const home = places(states)
    const balancer = new HashBalancer(1.25, random)
    const running: EndpointState[] = []
    for (let i = 0; i < 5000; i++) {
      if (running.length > 40 || (running.length > 0 && random() < 0.4)) {
        const [done] = running.splice(Math.floor(random() * running.length), 1)
        done!.end(0, false, true)
        continue
      }
      // A few keys have most of the requests.
      const at = Math.floor(random() ** 4 * 50)
      const most = Math.ceil((1.25 * (running.length + 1)) / 5)
      const hasRoom = home[at]!.inFlight < most
      const state = balancer.pick(candidates, KEYS[at]!, NONE)!
      if (hasRoom) expect(state).toBe(home[at])
      expect(state.inFlight).toBeLessThan(most)
      state.begin(true)
      running.push(state)
    }
  })

  test('none: all of a key go to one endpoint', () => {
    const states = many(4)
    const balancer = new HashBalancer(Number.POSITIVE_INFINITY, Math.random)
    const candidates = candidatesOf(states)
    const [home] = places(states)
    for (let i = 0; i < 100; i++) {
      expect(balancer.pick(candidates, KEYS[0]!, NONE)).toBe(home)
      home!.begin(true)
    }
  })

  test('a heavier endpoint may have more in flight', () => {
    const states = balancing.weighted([1, 3])
    const candidates = candidatesOf(states)
    const balancer = new HashBalancer(1, seeded(1))
    for (let i = 0; i < 400; i++) balancer.pick(candidates, KEYS[i]!, NONE)!.begin(true)
    expect(states.map((state) => state.inFlight)).toEqual([100, 300])
  })
})

test('where the endpoint of a key has failed the request, each key has its own next one', () => {
  const states = many(4)
  const candidates = candidatesOf(states)
  const balancer = new HashBalancer(1.25, Math.random)
  const nexts = new Set<EndpointState>()
  for (const [at, home] of places(states).slice(0, 200).entries()) {
    const next = balancer.pick(candidates, KEYS[at]!, [home])!
    expect(next).not.toBe(home)
    expect(balancer.pick(candidates, KEYS[at]!, [home])).toBe(next)
    if (home === states[0]) nexts.add(next)
  }
  expect(nexts.size).toBe(3)
})

test('a request without the key goes to the less busy of two', () => {
  const states = many(2)
  load(states[0]!, 5)
  const balancer = new HashBalancer(1.25, Math.random)
  for (let i = 0; i < 50; i++) expect(balancer.pick(candidatesOf(states), 0, NONE)).toBe(states[1])
})
