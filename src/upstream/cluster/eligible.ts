// Which endpoints of a service get its requests now, and what share each: those that are not out; while too few of them
// are in, all but the drained ones; those of the own zone where enough of them are in; fewer for one that has just come
// back. Asked once per request, and looks at the endpoints only while something may change by itself. It does not
// choose: balancers do.
import { Candidates, isFree, type Random } from './candidates.js'
import type { EndpointState } from './endpoint-state.js'

/** Panic: if more than this share of the endpoints is out, the rest would not carry the load. */
const MOST_OUT = 0.5
/** By weight: requests leave the own zone if less than this share of it is in. */
const LEAST_OF_ZONE = 0.7
/** What an endpoint gets at once when it comes back. */
const LEAST_SHARE = 0.1
/** Slow start: how often shares grow. */
const GROWTH_US = 50_000
/** Requests between two looks while all endpoints are in. A balancer may long avoid one that has gone out. */
const LOOK_EVERY = 64

export interface EligibleOptions {
  /** The gateway's; '' where it has none. */
  readonly zone: string
  /** 0: endpoints that come back get their whole share at once. */
  readonly slowStartMs: number
  readonly nowUs: () => number
  readonly random: Random
}

export class Eligible {
  /** What the balancer chooses from. */
  candidates = new Candidates([], [])
  private readonly options: EligibleOptions
  private endpoints: readonly EndpointState[] = []
  /** By position: what was last found, of FOUND. */
  private found: number[] = []
  /** All that are in, where candidates are those of the own zone alone; else null. */
  private wider: Candidates | null = null
  /** Too few endpoints are in: those that are out get requests too. */
  private panics = false
  /** Some endpoint is out, so that each request looks whether it still is. */
  private someOut = false
  private untilLook = LOOK_EVERY
  /** When shares grow next; Infinity where no endpoint is in its slow start. */
  private growsUs = Number.POSITIVE_INFINITY

  constructor(options: EligibleOptions) {
    this.options = options
  }

  use(endpoints: readonly EndpointState[]): void {
    this.endpoints = endpoints
    this.refresh()
  }

  /** Call it before each choice. */
  look(): void {
    if (this.someOut || --this.untilLook === 0) this.lookAtAll()
    if (this.growsUs !== Number.POSITIVE_INFINITY && this.options.nowUs() >= this.growsUs) this.weigh()
  }

  /** The balancer has chosen one that is out: it has gone out since the last look. Then another must be chosen. */
  hasLeft(state: EndpointState): boolean {
    if (!state.isOut || this.panics) return false
    this.refresh()
    return true
  }

  /**
   * What the balancer has chosen; or one of another zone, where those of the own one are full or have failed. A request
   * that has failed at all of them gets an ejected one: that may be well again.
   */
  orFarther(chosen: EndpointState | null, tried: readonly EndpointState[]): EndpointState | null {
    if (this.wider === null && tried.length === 0) return chosen
    if (chosen !== null && isFree(chosen, tried)) return chosen
    const farther = this.wider === null ? chosen : this.wider.spare(tried, this.options.random)
    if (tried.length === 0 || (farther !== null && isFree(farther, tried))) return farther
    const ejected = this.endpoints.find((state) => foundOf(state) === FOUND.ejected && isFree(state, tried))
    return ejected ?? farther
  }

  private lookAtAll(): void {
    this.untilLook = LOOK_EVERY
    const { endpoints, found } = this
    for (let at = 0; at < endpoints.length; at++) {
      if (foundOf(endpoints[at] as EndpointState) !== found[at]) return this.refresh()
    }
  }

  private refresh(): void {
    const { endpoints } = this
    this.found = endpoints.map(foundOf)
    const within = endpoints.filter((_, at) => this.found[at] === FOUND.in)
    const undrained = endpoints.filter((_, at) => this.found[at] !== FOUND.drained)
    this.someOut = within.length < endpoints.length
    // Where health checks have found all of them down, a request would find no more than that.
    this.panics =
      undrained.length - within.length > undrained.length * MOST_OUT &&
      !this.found.every((found) => found === FOUND.down || found === FOUND.drained)
    const all = this.panics ? undrained : within
    const near = this.panics ? all : this.nearOf(all)
    this.wider = near === all ? null : new Candidates(all, all.map(weightOf))
    this.candidates = new Candidates(near, near.map(weightOf))
    this.weigh()
  }

  /** Those of the own zone, where enough of them are in. */
  private nearOf(within: readonly EndpointState[]): readonly EndpointState[] {
    const { zone } = this.options
    if (zone === '') return within
    const isNear = ({ endpoint }: EndpointState): boolean => endpoint.zone === zone
    const near = within.filter(isNear)
    const isEnough = near.length > 0 && sumOf(near) >= LEAST_OF_ZONE * sumOf(this.endpoints.filter(isNear))
    return isEnough && near.length < within.length ? near : within
  }

  /** Gives the candidates the shares that they have now. */
  private weigh(): void {
    const { slowStartMs, nowUs } = this.options
    this.growsUs = Number.POSITIVE_INFINITY
    if (slowStartMs === 0) return
    const { states } = this.candidates
    const now = nowUs()
    const shares = states.map(({ returnedUs }) => (returnedUs === 0 ? 1 : (now - returnedUs) / (slowStartMs * 1000)))
    if (shares.some((share) => share < 1)) this.growsUs = now + GROWTH_US
    this.candidates.weigh(states.map((state, at) => weightOf(state) * clamp(shares[at] as number)))
  }
}

const FOUND = { in: 0, ejected: 1, down: 2, drained: 3 } as const

function foundOf(state: EndpointState): number {
  if (!state.isOut) return FOUND.in
  if (state.isOutInPanic) return FOUND.drained
  return state.isDown ? FOUND.down : FOUND.ejected
}

function weightOf({ endpoint }: EndpointState): number {
  return endpoint.weight
}

function sumOf(states: readonly EndpointState[]): number {
  return states.reduce((sum, state) => sum + weightOf(state), 0)
}

function clamp(share: number): number {
  return Math.min(1, Math.max(LEAST_SHARE, share))
}
