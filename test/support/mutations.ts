// What request-mutants.ts and response-mutants.ts share: numbers that can be made again, bytes that are changed, and
// where a text is cut on its way.

export type Below = (below: number) => number

/** mulberry32. */
export function numbers(seed: number): Below {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

/**
 * A part of the text that is taken out, doubled or, a byte of it, changed. Null for a `way` that is the caller's own.
 */
export function changed(text: string, at: number, to: number, way: number, next: Below): string | null {
  const before = text.slice(0, at)
  if (way === 0) return before + String.fromCharCode(next(256)) + text.slice(at + 1)
  if (way === 1) return before + text.slice(to)
  if (way === 2) return before + text.slice(at, to) + text.slice(at)
  return null
}

export interface Cutting {
  /** The ways to choose from: two of one cut, three of several, and the rest of none. */
  readonly ways: number
  /** Cuts at chosen places, at most. */
  readonly few: number
  /** Cuts byte by byte and at the ends of lines, at most. */
  readonly most: number
  /** No chosen place is further on than this. */
  readonly within: number
}

export function cutsOf(text: string, { ways, few, most, within }: Cutting, next: Below): number[] {
  const length = text.length
  if (length < 2) return []
  const place = (): number => 1 + next(Math.min(length - 1, within))
  switch (next(ways)) {
    case 0:
    case 1:
      return [place()]
    case 2:
      return Array.from({ length: 1 + next(few) }, place).sort((a, b) => a - b)
    case 3: {
      // Where lines end, and between their two bytes.
      const cuts: number[] = []
      for (let at = text.indexOf('\r'); at >= 0 && cuts.length < most; at = text.indexOf('\r', at + 1)) {
        if (next(2) === 0) cuts.push(at + next(3))
      }
      return cuts.filter((cut) => cut > 0 && cut < length)
    }
    case 4: {
      // At every byte of a part of it: a head's end, chunks.
      if (next(3) !== 0) return []
      const from = length <= most ? 0 : next(Math.min(length - most, within))
      return Array.from({ length: Math.min(length - 1, most) }, (_, i) => from + i + 1)
    }
    default:
      return []
  }
}
