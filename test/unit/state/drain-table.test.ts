import { join } from 'node:path'
import { expect, test } from 'vitest'
import { native } from '../../../native/index.js'
import { type Drain, DrainTable } from '../../../src/state/drain-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'
import { temporaryFolder } from '../../support/gateway.js'

const RECORD_BYTES = 512
const ROOM = 256

function segmentAt(path: string | null, rateLimitKeys = 64): Segment {
  const spec = {
    workers: 1,
    rateLimitKeys,
    replayKeys: 0,
    services: 1,
    endpoints: 1,
    routes: 1,
    countsAddresses: false,
  }
  return openSegment(SECTIONS, spec, { path, isolation: path === null ? 'thread' : 'process' })
}

const drainOf = (n: number, service = 'site'): Drain => ({
  service,
  origin: `http://10.0.0.${n}:9000`,
  sinceUs: 1_800_000_000_000_000 + n,
})
const none = () => false

test('whoever reads the memory finds what was drained and not taken back, the oldest first', () => {
  const segment = segmentAt(null)
  const table = new DrainTable(segment)
  for (const n of [3, 1, 2]) expect(table.add(drainOf(n), none)).toBe(true)
  expect(table.add(drainOf(4, 'other/café'), none)).toBe(true)
  expect(table.remove('site', drainOf(2).origin)).toBe(true)
  expect(table.remove('site', drainOf(4).origin)).toBe(false)
  const reader = new DrainTable(segment)
  expect(reader.all).toEqual([drainOf(1), drainOf(3), drainOf(4, 'other/café')])
  expect(reader.has('site', drainOf(1).origin)).toBe(true)
  expect(reader.has('other', drainOf(1).origin)).toBe(false)
  // Another gateway changes it.
  table.remove('site', drainOf(1).origin)
  expect(reader.has('site', drainOf(1).origin)).toBe(true)
  reader.read()
  expect(reader.has('site', drainOf(1).origin)).toBe(false)
})

test('an endpoint that is drained again stays drained since the first time', () => {
  const table = new DrainTable(segmentAt(null))
  table.add(drainOf(1), none)
  expect(table.add({ ...drainOf(1), sinceUs: drainOf(9).sinceUs }, none)).toBe(true)
  expect(table.all).toEqual([drainOf(1)])
})

test('a full table takes no more, or drops the oldest that is to spare; nor does it take names that are too long', () => {
  const table = new DrainTable(segmentAt(null))
  for (let n = 0; n < ROOM; n++) expect(table.add(drainOf(n), none)).toBe(true)
  expect(table.add(drainOf(ROOM), none)).toBe(false)
  expect(table.all).toHaveLength(ROOM)
  expect(table.add(drainOf(ROOM), ({ sinceUs }) => sinceUs >= drainOf(7).sinceUs)).toBe(true)
  expect(table.has('site', drainOf(7).origin)).toBe(false)
  expect(table.has('site', drainOf(8).origin)).toBe(true)
  expect(table.all).toHaveLength(ROOM)
  table.remove('site', drainOf(ROOM).origin)
  expect(table.add({ ...drainOf(1), origin: `http://${'h'.repeat(600)}` }, none)).toBe(false)
})

test('memory that was overwritten gets back what it held', () => {
  const segment = segmentAt(null)
  const table = new DrainTable(segment)
  for (const n of [1, 2, 3]) table.add(drainOf(n), none)
  const { buffer, offset, bytes } = segment.section('drains')
  new Uint8Array(buffer, offset, bytes).fill(0)
  table.write()
  expect(new DrainTable(segment).all).toEqual([1, 2, 3].map((n) => drainOf(n)))
})

test.skipIf(native === null)(
  'the next start finds it, also in a file of another size; damage is dropped, and counted',
  () => {
    const path = join(temporaryFolder(), 'state')
    const start = (rateLimitKeys = 64): Segment => segmentAt(path, rateLimitKeys)
    const end = (segment: Segment): void => native!.closeFd(segment.fd)
    const first = start()
    const table = new DrainTable(first)
    for (const n of [1, 2, 3]) table.add(drainOf(n), none)
    end(first)
    const second = start()
    expect(second.notice).toMatch(/, 3 drained endpoints$/)
    const { buffer, offset } = second.section('drains')
    new Uint8Array(buffer)[offset + RECORD_BYTES + 20]! ^= 1
    end(second)
    const third = start(100_000)
    expect(third.notice).toMatch(/, 2 drained endpoints \(1 damaged ones dropped\); tables resized$/)
    expect(new DrainTable(third).all).toEqual([drainOf(1), drainOf(3)])
    end(third)
    const fourth = start(100_000)
    expect(fourth.notice).toMatch(/, 2 drained endpoints$/)
    end(fourth)
  },
)
