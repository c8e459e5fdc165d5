import { describe, expect, it } from 'vitest'
import { type PlaceWaiter, UploadPlaces } from '../../../src/upstream/upload-places.js'

const waiter = (readAheadUs = 0): PlaceWaiter & { has: number } => ({
  readAheadUs,
  has: 0,
  onPlace() {
    this.has++
  },
})

describe('places for uploads', () => {
  it.each([
    [128, 64, 16],
    [2, 1, 1],
    [1, 1, 1],
  ])('of %i connections unfinished uploads get %i, and begin early up to %i', (connections, most, early) => {
    const places = new UploadPlaces(connections)
    let taken = 0
    let takenEarly = 0
    for (; places.take(waiter()); taken++) if (places.mayBeginEarly) takenEarly++
    expect(taken).toBe(most)
    expect(takenEarly + 1).toBe(early)
    expect(places.anyWaits).toBe(true)
  })

  it('go to the one whose client was fastest, once each', () => {
    const places = new UploadPlaces(2)
    const waiters = [300, 100, 200].map(waiter)
    expect(places.take(waiter())).toBe(true)
    for (const one of waiters) expect(places.take(one)).toBe(false)
    places.leave()
    expect(waiters.map(({ has }) => has)).toEqual([0, 1, 0])
    places.leave()
    expect(waiters.map(({ has }) => has)).toEqual([0, 1, 1])
    places.leave()
    places.leave()
    expect(waiters.map(({ has }) => has)).toEqual([1, 1, 1])
    expect([places.anyWaits, places.mayBeginEarly]).toEqual([false, true])
  })

  it('pass over one that waits no more', () => {
    const places = new UploadPlaces(2)
    const [first, second] = [waiter(1), waiter(2)]
    places.take(waiter())
    places.take(first)
    places.take(second)
    places.stopWaiting(first)
    places.stopWaiting(first)
    places.leave()
    expect([first.has, second.has]).toEqual([0, 1])
  })
})
