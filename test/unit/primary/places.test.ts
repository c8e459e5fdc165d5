// Places in the shared tables over changes of endpoints and reloads: none is given to another name while a worker may
// still use it.
import { expect, test } from 'vitest'
import { compile, type RouteTable } from '../../../src/config/compile.js'
import { type Loaded, loadConfig } from '../../../src/config/load.js'
import { Places } from '../../../src/primary/places.js'
import { SharedState } from '../../../src/primary/shared-state.js'

function loadedOf(services: Readonly<Record<string, readonly string[]>>): Loaded {
  const config = {
    services: Object.fromEntries(Object.entries(services).map(([name, endpoints]) => [name, { endpoints }])),
    routes: Object.keys(services).map((service) => ({ match: { path: `/${service}` }, service, auth: 'none' })),
  }
  const env = { TIDEGATE_STATE: 'none', TIDEGATE_RATE_LIMIT_KEYS: '1024' }
  return loadConfig({ text: { origin: 'test', yaml: JSON.stringify(config) }, env })
}

function tableOf(services: Readonly<Record<string, readonly string[]>>): RouteTable {
  const { config, settings } = loadedOf(services)
  return compile(config, settings)
}

const many = (count: number, from = 1): string[] => Array.from({ length: count }, (_, i) => `http://h:${from + i}`)
/** For two endpoints at the start: 2 × 2 + 64. */
const ROOM = 68

function setUp() {
  const { config, settings } = loadedOf({ a: many(1), b: many(1) })
  const first = compile(config, settings)
  const state = new SharedState(first, settings, { kind: 'thread', why: '', keepsState: false }, undefined)
  const workers = { oldestGeneration: 1, oldestChange: 0 }
  const places = new Places({
    state,
    oldestGeneration: () => workers.oldestGeneration,
    oldestChange: () => workers.oldestChange,
    isChangingHands: () => false,
  })
  return { state, places, workers, first }
}

test('endpoints that a service has lost keep their places until every worker has taken note', () => {
  const { state, places, workers, first } = setUp()
  const { endpoints: before } = places.forGeneration(first, 1)
  state.endpoints.setHealth(before[0]!, 'down')
  const wide = places.forEndpoints(tableOf({ a: many(60, 100), b: many(1) }), 'a', 1).endpoints
  expect(wide).toHaveLength(61)
  expect(wide.slice(0, 60)).not.toContain(before[0])
  expect(wide[60]).toBe(before[1])
  // 62 of them are in use: one that is lost, and those of now.
  const next = tableOf({ a: many(7, 200), b: many(1) })
  expect(() => places.forEndpoints(next, 'a', 2)).toThrow(`this start made (${ROOM}): restart`)
  expect(state.endpoints.health(before[0]!)).toBe('down')
  workers.oldestChange = 1
  const narrow = places.forEndpoints(next, 'a', 2).endpoints
  expect(narrow).toHaveLength(8)
  for (const slot of narrow.slice(0, 7)) expect(wide).not.toContain(slot)
  expect(narrow.map((slot) => state.endpoints.health(slot))).toEqual(Array(8).fill('unknown'))
  // The sixty are still some worker's.
  expect(() => places.forEndpoints(tableOf({ a: many(8, 300), b: many(1) }), 'a', 3)).toThrow('need more room')
  workers.oldestChange = 2
  expect(places.forEndpoints(tableOf({ a: many(60, 300), b: many(1) }), 'a', 3).endpoints).toHaveLength(61)
})

test('a change is one of every generation that has the service', () => {
  const { places, workers, first } = setUp()
  places.forGeneration(first, 1)
  const wide = places.forGeneration(tableOf({ a: many(60, 100), b: many(1) }), 2).endpoints
  expect(wide).toHaveLength(61)
  places.forEndpoints(tableOf({ a: many(1, 500), b: many(1) }), 'a', 1)
  workers.oldestChange = 1
  // Neither generation has the sixty any more, although both are in use.
  expect(places.forEndpoints(tableOf({ a: many(60, 600), b: many(1) }), 'a', 2).endpoints).toHaveLength(61)
})

test('an endpoint that comes back begins as unknown; one that stays is what it was', () => {
  const { state, places, workers, first } = setUp()
  const [a, b] = places.forGeneration(first, 1).endpoints as [number, number]
  state.endpoints.setHealth(a, 'down')
  state.endpoints.setHealth(b, 'down')
  places.forEndpoints(tableOf({ a: many(1, 2), b: many(1) }), 'a', 1)
  workers.oldestChange = 1
  expect(places.forEndpoints(first, 'a', 2).endpoints).toEqual([a, b])
  expect([a, b].map((slot) => state.endpoints.health(slot))).toEqual(['unknown', 'down'])
})

test('an endpoint that a service with requests gets starts slowly, those of a new service do not', () => {
  const { state, places, first } = setUp()
  const returned = (slots: readonly number[]): boolean[] => slots.map((slot) => state.endpoints.returnedUs(slot) > 0)
  expect(returned(places.forGeneration(first, 1).endpoints)).toEqual([false, false])
  const reloaded = tableOf({ a: many(2), b: many(1), c: many(2) })
  expect(returned(places.forGeneration(reloaded, 2).endpoints)).toEqual([false, true, false, false, false])
  const wider = tableOf({ a: many(2), b: many(2), c: many(2) })
  expect(returned(places.forEndpoints(wider, 'b', 1).endpoints)).toEqual([false, true, false, true, false, false])
})
