// The one that is likely to respond sooner, of two endpoints that are drawn at random: its latency times the requests
// that are in flight there (Finagle's peak EWMA). The average of latencies follows a slower response at once and faster
// ones by and by; while no response comes it decays, so that an endpoint that was slow is tried again. Per worker. Runs
// per request.
import type { Balancer } from './balancer.js'
import { type Candidates, isFree, type Random } from './candidates.js'
import type { EndpointState } from './endpoint-state.js'

/** The time in which what was measured loses 63 % of its weight. */
const DECAY_US = 5e6
/** A failure says no less than a response that took so long: failing fast must not attract requests. */
const FAILURE_US = 1e6
/** Endpoints are as good as each other if the cost of one is within this factor of the other's: latencies vary. */
const ALIKE = 1.1

export class PeakEwma implements Balancer {
  private readonly random: Random
  private readonly nowUs: () => number
  private known: Candidates | null = null
  /** By position among the known candidates. */
  private averages: readonly LatencyAverage[] = []

  constructor(random: Random, nowUs: () => number) {
    this.random = random
    this.nowUs = nowUs
  }

  pick(candidates: Candidates, _key: number, tried: readonly EndpointState[]): EndpointState | null {
    if (candidates !== this.known) this.adopt(candidates)
    const { states } = candidates
    if (states.length === 1) return states[0] as EndpointState
    if (states.length === 0) return null
    const first = candidates.draw(this.random())
    const second = candidates.drawOther(first, this.random())
    const isFirst = this.isNoSlower(candidates, first, second)
    const state = states[isFirst ? first : second] as EndpointState
    if (isFree(state, tried)) return state
    const other = states[isFirst ? second : first] as EndpointState
    return isFree(other, tried) ? other : candidates.spare(tried, this.random)
  }

  private isNoSlower(candidates: Candidates, a: number, b: number): boolean {
    const now = this.nowUs()
    const latencyA = (this.averages[a] as LatencyAverage).read(now)
    const latencyB = (this.averages[b] as LatencyAverage).read(now)
    // What has never been measured gets its share of requests, and not all of them.
    if (latencyA === 0 || latencyB === 0) return candidates.isNoBusier(a, b)
    return latencyA * loadOf(candidates, a) <= latencyB * loadWithNext(candidates, b) * ALIKE
  }

  /** Endpoints that were candidates before keep what is known of them. */
  private adopt(candidates: Candidates): void {
    const before = new Map(this.averages.map((average) => [average.state, average]))
    // Those that are out meanwhile are forgotten: what they did before says little of what they do then.
    this.averages = candidates.states.map((state) => before.get(state) ?? new LatencyAverage(state))
    this.known = candidates
  }
}

/** Requests in flight, as many as an endpoint of average weight would have in its place, and one more. */
function loadOf({ states, weights }: Candidates, at: number): number {
  return states[at]!.inFlight / (weights[at] as number) + 1
}

/** The next request counts by weight, too: else a light endpoint would get each request that finds it idle. */
function loadWithNext({ states, weights }: Candidates, at: number): number {
  return Math.max(1, (states[at]!.inFlight + 1) / (weights[at] as number))
}

/** Of one endpoint. It reads what the endpoint has counted since it was last asked for, so counting costs no more. */
class LatencyAverage {
  readonly state: EndpointState
  private latencyUs = 0
  /** When it was last read. */
  private atUs = 0
  private sumUs: number
  private responses: number
  private failures: number

  constructor(state: EndpointState) {
    this.state = state
    this.sumUs = state.latencySumUs
    this.responses = state.latencies
    this.failures = state.failures
  }

  /** In microseconds; 0 where no request has ended yet. */
  read(nowUs: number): number {
    const { latencySumUs, latencies, failures } = this.state
    const left = Math.exp(-Math.max(0, nowUs - this.atUs) / DECAY_US)
    this.atUs = nowUs
    let measured = latencies > this.responses ? (latencySumUs - this.sumUs) / (latencies - this.responses) : 0
    if (failures > this.failures) measured = Math.max(measured, FAILURE_US)
    this.sumUs = latencySumUs
    this.responses = latencies
    this.failures = failures
    const decayed = this.latencyUs * left
    this.latencyUs = measured === 0 || measured <= decayed ? decayed + measured * (1 - left) : measured
    return this.latencyUs
  }
}
