// The endpoint that a key of the request has, by rendezvous hashing: every endpoint draws a number that it and the key
// alone decide, and the highest has the key. So all workers, restarts and machines agree without a word, and of n
// endpoints one that comes or goes moves the keys of one n-th, and no other. An endpoint that has more than its share
// of what is in flight leaves further requests to the next highest. Runs per request.
import type { Balancer } from './balancer.js'
import { type Candidates, isFree, type Random } from './candidates.js'
import type { EndpointState } from './endpoint-state.js'
import { PowerOfTwo } from './p2c.js'

export class HashBalancer implements Balancer {
  /** Of requests without the key. */
  private readonly keyless: PowerOfTwo
  private readonly random: Random
  /** No endpoint has more than this times the mean in flight; Infinity: as many as come. */
  private readonly bounded: number
  private known: Candidates | null = null
  /** By position among the known candidates: what tells an endpoint from the others, in its draws. */
  private seeds = new Int32Array(0)
  /** The share of each. */
  private weights = new Float64Array(0)
  private isEven = true

  constructor(bounded: number, random: Random) {
    this.bounded = bounded
    this.random = random
    this.keyless = new PowerOfTwo(random)
  }

  pick(candidates: Candidates, key: number, tried: readonly EndpointState[]): EndpointState | null {
    if (key === 0) return this.keyless.pick(candidates, key, tried)
    if (candidates !== this.known) this.adopt(candidates)
    const { states } = candidates
    const room = this.bounded === Number.POSITIVE_INFINITY ? this.bounded : this.bounded * (inFlight(states) + 1)
    let best = -1
    let bestDraw = 0
    for (let at = 0; at < states.length; at++) {
      const draw = this.draw(at, key)
      if (best >= 0 && draw <= bestDraw) continue
      const state = states[at] as EndpointState
      if (state.inFlight >= Math.ceil(room * (this.weights[at] as number)) || !isFree(state, tried)) continue
      best = at
      bestDraw = draw
    }
    return best >= 0 ? (states[best] as EndpointState) : candidates.spare(tried, this.random)
  }

  /** The logarithm of a number between 0 and 1, over the weight: the highest as often as the weight says. */
  private draw(at: number, key: number): number {
    const drawn = ((mix(key ^ (this.seeds[at] as number)) >>> 0) + 0.5) / 2 ** 32
    // Where all weights are equal, the number itself puts the endpoints in the same order.
    return this.isEven ? drawn - 1 : Math.log(drawn) / (this.weights[at] as number)
  }

  /** A slow start would move keys to and fro, so weights are the configured ones. */
  private adopt(candidates: Candidates): void {
    const { states } = candidates
    const total = states.reduce((sum, { endpoint }) => sum + endpoint.weight, 0)
    this.seeds = Int32Array.from(states, ({ endpoint }) => hashOf(endpoint.origin))
    this.weights = Float64Array.from(states, ({ endpoint }) => endpoint.weight / total)
    this.isEven = states.every(({ endpoint }) => endpoint.weight === states[0]!.endpoint.weight)
    this.known = candidates
  }
}

function inFlight(states: readonly EndpointState[]): number {
  let sum = 0
  for (let at = 0; at < states.length; at++) sum += states[at]!.inFlight
  return sum
}

/** The key of a text that is not empty: FNV-1a, mixed. Its values decide where requests go: they may never change. */
export function hashOf(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return mix(hash) || 1
}

/** MurmurHash3's finalizer: each bit of the input changes each bit of the result about half of the time. */
function mix(word: number): number {
  let hash = word
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return hash ^ (hash >>> 16)
}
