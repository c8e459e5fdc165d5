import { beforeEach, expect, it } from 'vitest'
import type { Consumer, Route } from '../../../src/config/compile.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import { createReplayGuard, type ReplayGuard } from '../../../src/policy/replay.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { ReplayTable } from '../../../src/state/replay-table.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'

const NOON = Date.UTC(2026, 5, 1, 12) / 1000
const SPEC = { workers: 1, rateLimitKeys: 15, services: 1, endpoints: 1, routes: 1 }

const route = (index: number, over: Partial<Route> = {}): Route =>
  ({ index, auth: ['x-m'], maxSkewSeconds: 60, httpSignature: null, replayOnce: true, ...over }) as Route
const NARROW = route(0)
const WIDE = route(1, { maxSkewSeconds: 600 })
const FREE = route(2, { replayOnce: false, maxSkewSeconds: 3600 })

let wallSeconds = NOON
let segment: Segment
let guard: ReplayGuard

beforeEach(() => {
  segment = openSegment(SECTIONS, { ...SPEC, replayKeys: 16 }, { path: null, isolation: 'thread' })
  guard = createReplayGuard(new ReplayTable(segment, 0), segment, [NARROW, WIDE, FREE], () => wallSeconds)
})

function exchangeOf(on: Route, signature: string, signedSeconds: number, consumer = 'c'): Exchange {
  const exchange = new Exchange(new MemoryDownstream(), 0, 'GET', '/', undefined, Fields.of([]))
  exchange.route = on
  exchange.consumer = { name: consumer } as Consumer
  exchange.signature = signature
  exchange.signatureUntilSeconds = signature === '' ? 0 : signedSeconds + on.maxSkewSeconds + 1
  return exchange
}

/** The reason, or null, of a request signed at `signedSeconds` that gets here at `nowSeconds`. */
function bring(on: Route, signature: string, signedSeconds: number, nowSeconds: number, consumer = 'c'): string | null {
  wallSeconds = nowSeconds
  const exchange = exchangeOf(on, signature, signedSeconds, consumer)
  return (guard.refuse(on)?.(exchange) ?? guard.remember(on)?.(exchange))?.reason ?? null
}

it('lets a signature of a consumer in once', () => {
  expect(bring(NARROW, 'a', NOON, NOON)).toBeNull()
  expect(bring(NARROW, 'a', NOON, NOON + 60)).toBe('replayed')
  expect(bring(NARROW, 'b', NOON, NOON)).toBeNull()
  expect(bring(NARROW, 'a', NOON, NOON, 'd')).toBeNull()
})

it('leaves alone what is not signed, and routes that do not ask', () => {
  for (let i = 0; i < 2; i++) {
    expect(bring(NARROW, '', NOON, NOON)).toBeNull()
    expect(bring(FREE, 'a', NOON, NOON)).toBeNull()
  }
})

it('does not let in what ran out since its head was looked at: it may be forgotten already', () => {
  expect(bring(NARROW, 'late', NOON, NOON + 60)).toBeNull()
  expect(bring(NARROW, 'later', NOON, NOON + 61)).toBe('signature ran out while the body arrived')
})

it('remembers for as long as any route would take the signature', () => {
  expect(bring(NARROW, 'a', NOON, NOON)).toBeNull()
  // Others take every slot that may be had; on this route alone it would have run out.
  for (let i = 0; i < 60; i++) bring(NARROW, `other ${i}`, NOON + 300, NOON + 300)
  expect(bring(WIDE, 'a', NOON, NOON + 300)).toBe('replayed')
  expect(bring(WIDE, 'a', NOON, NOON + 600)).toBe('replayed')
})

it('lets nobody in where there is no room, until some of it ran out', () => {
  for (let i = 0; i < 48; i++) expect(bring(WIDE, '1', NOON, NOON, `c${i}`)).toBeNull()
  expect(bring(WIDE, 'one more', NOON, NOON)).toBe('no room to remember another signature')
  expect(bring(WIDE, '1', NOON, NOON, 'c7')).toBe('replayed')
  expect(bring(WIDE, 'one more', NOON + 610, NOON + 610)).toBeNull()
})

it('gives a consumer no more than its share of the room', () => {
  for (let i = 0; i < 32; i++) expect(bring(WIDE, `${i}`, NOON, NOON)).toBeNull()
  expect(bring(WIDE, 'one more', NOON, NOON)).toBe('consumer has its share of the memory of signatures')
  expect(bring(WIDE, 'one more', NOON, NOON, 'd')).toBeNull()
  expect(bring(WIDE, '7', NOON, NOON)).toBe('replayed')
})

it('remembers nothing by looking, and lets one of two in that looked at once', () => {
  const [first, second] = [exchangeOf(WIDE, 'a', NOON), exchangeOf(WIDE, 'a', NOON)]
  const [refuse, remember] = [guard.refuse(WIDE)!, guard.remember(WIDE)!]
  expect([refuse(first), refuse(second)]).toEqual([null, null])
  expect(remember(second)).toBeNull()
  expect(remember(first)?.reason).toBe('replayed')
  expect(refuse(first)?.reason).toBe('replayed')
})
