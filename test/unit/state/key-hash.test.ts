import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { KeyHash } from '../../../src/state/key-hash.js'

const words = ({ a, b, c, d }: KeyHash): number[] => [a, b, c, d]
const of = (...parts: string[]): number[] => {
  const hash = new KeyHash().seed(1, 2, 3, 4)
  for (const part of parts) hash.text(part)
  return words(hash.finish())
}

describe('a key hash', () => {
  it('is the same for the same seed and key, and another for another seed', () => {
    expect(of('consumer')).toEqual(of('consumer'))
    expect(of('consumer')).not.toEqual(words(new KeyHash().seed(1, 2, 3, 5).text('consumer').finish()))
  })

  it('goes on from where another stands', () => {
    const start = new KeyHash().seed(1, 2, 3, 4).text('limit')
    expect(words(new KeyHash().from(start).text('key').finish())).toEqual(of('limit', 'key'))
    expect(words(new KeyHash().from(start).text('other').finish())).toEqual(of('limit', 'other'))
  })

  it('tells parts apart by where one ends, whatever characters they have', () => {
    const any = fc.array(fc.string({ unit: 'binary', maxLength: 6 }), { maxLength: 4 })
    fc.assert(
      fc.property(any, any, (one, other) => {
        expect(JSON.stringify(of(...one)) === JSON.stringify(of(...other))).toBe(
          JSON.stringify(one) === JSON.stringify(other),
        )
      }),
      { numRuns: 5000 },
    )
    const cases = [
      [''],
      ['', ''],
      ['a'],
      ['a', ''],
      ['', 'a'],
      ['a\0'],
      ['\0a'],
      ['ab', 'c'],
      ['a', 'bc'],
      ['\ud800'],
      ['\udc00'],
    ]
    expect(new Set(cases.map((parts) => of(...parts).join())).size).toBe(cases.length)
  })

  it('keeps numbers of different kinds, and texts, apart', () => {
    const hashes = [
      new KeyHash().pair(4, 0, 7),
      new KeyHash().pair(6, 0, 7),
      new KeyHash().pair(4, 7, 0),
      new KeyHash().text('\0\0\u0007\0'),
    ]
    expect(new Set(hashes.map((hash) => words(hash.finish()).join())).size).toBe(4)
  })

  it('spreads keys that differ little evenly over all bits of all words', () => {
    const keys = 20_000
    const ones = new Int32Array(128)
    for (let key = 0; key < keys; key++)
      of(`10.0.${key >> 8}.${key & 255}`).forEach((word, i) => {
        for (let bit = 0; bit < 32; bit++) if ((word >>> bit) & 1) ones[i * 32 + bit]!++
      })
    // Six standard deviations.
    for (const count of ones) expect(Math.abs(count - keys / 2)).toBeLessThan(6 * Math.sqrt(keys / 4))
  })

  it('changes half of its bits with any one bit of the key', () => {
    let changed = 0
    let pairs = 0
    for (let key = 0; key < 2000; key++) {
      const text = `key-${key}`
      const before = of(text)
      for (let at = 0; at < text.length; at++) {
        const flipped = text.slice(0, at) + String.fromCharCode(text.charCodeAt(at) ^ 1) + text.slice(at + 1)
        of(flipped).forEach((word, i) => {
          for (let x = word ^ before[i]!; x !== 0; x &= x - 1) changed++
        })
        pairs++
      }
    }
    expect(changed / pairs).toBeGreaterThan(63)
    expect(changed / pairs).toBeLessThan(65)
  })
})
