import fc from 'fast-check'
import { expect, it } from 'vitest'
import { Slots } from '../../../src/primary/slots.js'

const none = new Set<string>()

it('a name keeps its place, whatever comes and goes beside it', () => {
  const slots = new Slots(4)
  expect(slots.assign(['a', 'b', 'c'], none)).toEqual([0, 1, 2])
  expect(slots.assign(['c', 'x', 'a'], none)).toEqual([2, 3, 0])
  // b is not forgotten as long as its place is not needed.
  expect(slots.assign(['b'], none)).toEqual([1])
})

it('a place is given to another name only when nobody can be using it', () => {
  const slots = new Slots(2)
  const taken: number[] = []
  expect(slots.assign(['a', 'b'], none, (slot) => taken.push(slot))).toEqual([0, 1])
  expect(slots.assign(['b', 'c'], new Set(['a', 'b']))).toBeNull()
  expect(slots.assign(['a', 'b'], none)).toEqual([0, 1])
  expect(slots.assign(['b', 'c'], new Set(['b']), (slot) => taken.push(slot))).toEqual([1, 0])
  expect(taken).toEqual([0, 1, 0])
})

it('no two names ever share a place, and each stays while it is named or in use', () => {
  const names = fc.uniqueArray(fc.constantFrom(...'abcdefghij'), { maxLength: 6 })
  fc.assert(
    fc.property(fc.array(names, { maxLength: 30 }), (rounds) => {
      const slots = new Slots(7)
      let before = new Map<string, number>()
      for (const wanted of rounds) {
        const given = slots.assign(wanted, new Set(before.keys()))
        const union = new Set([...before.keys(), ...wanted])
        expect(given === null).toBe(union.size > 7)
        if (given === null) continue
        expect(new Set(given).size).toBe(wanted.length)
        const now = new Map(wanted.map((name, at) => [name, given[at] as number]))
        for (const [name, slot] of now) {
          expect(slot).toBeLessThan(7)
          expect(before.get(name) ?? slot).toBe(slot)
          for (const [other, held] of before) if (other !== name) expect(held).not.toBe(slot)
        }
        before = now
      }
    }),
  )
})
