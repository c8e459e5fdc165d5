// The endpoints among which a balancer chooses, each with the share of the requests that it is to get. eligible.ts
// makes a new object when other endpoints are eligible, and only changes the weights of this one during a slow start.
// So a balancer may keep something by position as long as it is given the same object. Runs per request.
import type { EndpointState } from './endpoint-state.js'

/** From 0 up to but not including 1, as Math.random. */
export type Random = () => number

export class Candidates {
  readonly states: readonly EndpointState[]
  /** By position; 1 on average. */
  readonly weights: Float64Array
  /** All weights are equal. */
  isEven = true
  /** By position: the weights up to and including this one. */
  private readonly sums: Float64Array

  /** @param weights by position, of any scale */
  constructor(states: readonly EndpointState[], weights: readonly number[]) {
    this.states = states
    this.weights = new Float64Array(states.length)
    this.sums = new Float64Array(states.length)
    this.weigh(weights)
  }

  weigh(weights: readonly number[]): void {
    const count = this.states.length
    const total = weights.reduce((sum, weight) => sum + weight, 0)
    this.isEven = weights.every((weight) => weight === weights[0])
    let sum = 0
    for (let at = 0; at < count; at++) {
      const weight = this.isEven ? 1 : ((weights[at] as number) * count) / total
      this.weights[at] = weight
      sum += weight
      this.sums[at] = sum
    }
  }

  /** A position, by weight. There is at least one. */
  draw(random: number): number {
    const count = this.states.length
    return this.isEven ? Math.floor(random * count) : this.positionOf(random * (this.sums[count - 1] as number))
  }

  /** Another position than this one, by weight. There are at least two. */
  drawOther(than: number, random: number): number {
    const count = this.states.length
    if (this.isEven) {
      const at = Math.floor(random * (count - 1))
      return at < than ? at : at + 1
    }
    const weight = this.weights[than] as number
    const before = (this.sums[than] as number) - weight
    const drawn = random * ((this.sums[count - 1] as number) - weight)
    const at = this.positionOf(drawn < before ? drawn : drawn + weight)
    // Sums are rounded.
    return at !== than ? at : at > 0 ? at - 1 : 1
  }

  /**
   * With one more request the endpoint at `b` would, for its weight, be busier than the one at `a` is now. Without
   * that one more, a light endpoint would get each request that finds it idle while the heavy one is not.
   */
  isNoBusier(a: number, b: number): boolean {
    const inA = this.states[a]!.inFlight
    const inB = this.states[b]!.inFlight
    return this.isEven ? inA <= inB : inA * (this.weights[b] as number) < (inB + 1) * (this.weights[a] as number)
  }

  /**
   * Where what a balancer has chosen is full, or has failed the request: the least busy of those that are neither. If
   * there is none, one that has failed it; if all are full, any. Null where there is no candidate.
   */
  spare(tried: readonly EndpointState[], random: Random): EndpointState | null {
    const count = this.states.length
    if (count === 0) return null
    let at = this.draw(random())
    let best = at
    let bestRank = 3
    for (let i = 0; i < count; i++) {
      const state = this.states[at] as EndpointState
      const rank = state.isFull ? 2 : tried.includes(state) ? 1 : 0
      if (rank < bestRank || (rank === bestRank && !this.isNoBusier(best, at))) {
        best = at
        bestRank = rank
      }
      at = at + 1 === count ? 0 : at + 1
    }
    return this.states[best] as EndpointState
  }

  /** The first position whose sum is over `drawn`. */
  private positionOf(drawn: number): number {
    const { sums } = this
    let low = 0
    let high = sums.length - 1
    while (low < high) {
      const middle = (low + high) >> 1
      if ((sums[middle] as number) > drawn) high = middle
      else low = middle + 1
    }
    return low
  }
}

/** It may be given the request, if the balancer wants it to. */
export function isFree(state: EndpointState, tried: readonly EndpointState[]): boolean {
  return !state.isFull && !tried.includes(state)
}
