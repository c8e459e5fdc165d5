// A route's split: which of several services gets a request. Pure. The choice runs per request, in handlers/split.ts; a
// key's service depends on names, weights and the key alone, so all workers, restarts and machines agree on it.
import type { RequestKey, SplitRules, SplitSide } from './route-table.js'

/** The services that an entry names, each with the path of its key. Takes what the schema refused, too. */
export function splitEntries(split: unknown): { readonly path: readonly PropertyKey[]; readonly service: unknown }[] {
  if (Array.isArray(split)) {
    return split.map((side, at) => ({ path: ['split', at, 'service'], service: Object(side).service }))
  }
  if (typeof split !== 'object' || split === null) return []
  return Object.keys(split).map((service) => ({ path: ['split', service], service }))
}

/** Of `consumer`, `address`, `header:NAME` or `cookie:NAME`. */
export function parseRequestKey(text: string): RequestKey {
  const [kind, name] = text.split(/:(.*)/s) as [RequestKey['kind'], string]
  if (kind === 'header') return { kind, name: name.toLowerCase() }
  return kind === 'cookie' ? { kind, name } : { kind }
}

function formatRequestKey(key: RequestKey): string {
  return 'name' in key ? `${key.kind}:${key.name}` : key.kind
}

/** From 0 to 1. */
export function shareOfSide(sides: readonly SplitSide[], at: number): number {
  const total = sides.reduce((sum, { weight }) => sum + weight, 0)
  return (sides[at] as SplitSide).weight / total
}

export function formatShare(share: number): string {
  return `${Number((share * 100).toPrecision(3))}%`
}

/** `orders 95%, orders-next 5%, by consumer` */
export function describeSplit({ sides, sticky }: SplitRules): string {
  const shares = sides.map(({ service }, at) => `${service.name} ${formatShare(shareOfSide(sides, at))}`)
  return shares.join(', ') + (sticky === null ? '' : `, by ${formatRequestKey(sticky)}`)
}

/** The fraction of a golden section: of all steps, this one leaves the smallest gaps (Weyl's sequence). */
const STEP = (Math.sqrt(5) - 1) / 2

/**
 * Numbers from 0 to 1 that lie more evenly than by chance: among any few dozen in a row, a share is met to within one
 * or two of them. Two in a row are never close, so a client that tries again at once leaves a canary.
 */
export class Spread {
  private last: number

  /** @param start from 0, less than 1: chosen at random, so that processes do not go in step */
  constructor(start: number) {
    this.last = start
  }

  next(): number {
    const next = this.last + STEP
    this.last = next < 1 ? next : next - 1
    return this.last
  }
}

/** Of one route. */
export class Split {
  private readonly weights: readonly number[]
  private readonly total: number
  private readonly seeds: readonly number[]

  /** @param route its name: a key may have another service on another route */
  constructor(route: string, sides: readonly SplitSide[]) {
    this.weights = sides.map(({ weight }) => weight)
    this.total = this.weights.reduce((sum, weight) => sum + weight, 0)
    this.seeds = sides.map(({ service }) => hashOf(`${route}\n${service.name}`))
  }

  /** Position of the side. @param point from 0, less than 1: each side has its weight's part of that */
  at(point: number): number {
    const { weights } = this
    let left = point * this.total
    let last = 0
    for (let i = 0; i < weights.length; i++) {
      const weight = weights[i] as number
      if (weight === 0) continue
      if (left < weight) return i
      left -= weight
      last = i
    }
    // Sums of fractions are rounded.
    return last
  }

  /**
   * Position of the key's side, by weighted rendezvous hashing: each side draws a number that it and the key alone
   * decide, and the lowest of them, each divided by its side's weight, has the key. So a side whose weight grows takes
   * keys from others, and no key changes between two of the others.
   */
  of(key: string): number {
    const { weights, seeds } = this
    const hash = hashOf(key)
    let best = 0
    let bestScore = Number.POSITIVE_INFINITY
    for (let i = 0; i < weights.length; i++) {
      // Of an exponential distribution whose rate is the weight; Infinity where that is 0.
      const score = -Math.log(unitOf(mix(hash ^ (seeds[i] as number)))) / (weights[i] as number)
      if (score >= bestScore) continue
      best = i
      bestScore = score
    }
    return best
  }
}

/** FNV-1a over UTF-16 units, and mixed. The values decide where keys go: they may never change. */
function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return mix(hash)
}

/** The finalizer of MurmurHash3: every bit of the input changes each bit of the result about half of the time. */
function mix(word: number): number {
  let hash = word
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return hash ^ (hash >>> 16)
}

/** Between 0 and 1, never either of them. */
function unitOf(word: number): number {
  return ((word >>> 0) + 0.5) / 2 ** 32
}
