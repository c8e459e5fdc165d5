// Endpoints for tests of balancers: real states over a real table, whose clients are never asked for anything. Time and
// chance are the test's.
import { compile } from '../../src/config/compile.js'
import type { EndpointConfig } from '../../src/config/endpoint.js'
import { loadConfig } from '../../src/config/load.js'
import { EndpointTable } from '../../src/state/endpoint-table.js'
import { openSegment } from '../../src/state/open-segment.js'
import { SECTIONS } from '../../src/state/sections.js'
import { createClient } from '../../src/upstream/client.js'
import { Candidates, type Random } from '../../src/upstream/cluster/candidates.js'
import { EndpointState } from '../../src/upstream/cluster/endpoint-state.js'

/** Most endpoints of one test. */
const ROOM = 256

export class Balancing {
  readonly table: EndpointTable
  /** Added to the segment's clock. */
  aheadUs = 0
  private readonly segmentNowUs: () => number
  private readonly states: EndpointState[] = []

  constructor() {
    const segment = openSegment(
      SECTIONS,
      { workers: 1, rateLimitKeys: 64, services: 1, endpoints: ROOM, routes: 1 } as never,
      { path: null, isolation: 'thread' },
    )
    this.segmentNowUs = () => segment.nowUs()
    this.table = new EndpointTable(segment, { endpoints: ROOM, workers: 1 })
  }

  readonly nowUs = (): number => this.segmentNowUs() + this.aheadUs

  /** Endpoints of one service; slots are given in order, over all calls. */
  endpoints(entries: readonly (Partial<Exclude<EndpointConfig, string>> | string)[]): EndpointState[] {
    const yaml = JSON.stringify({
      services: { s: { endpoints: entries } },
      routes: [{ match: {}, service: 's', auth: 'none' }],
    })
    const { config, settings } = loadConfig({ text: { origin: 'test', yaml }, env: { TIDEGATE_STATE: 'none' } })
    const from = this.states.length
    const table = compile(config, settings, {
      routes: [0],
      services: [0],
      endpoints: entries.map((_, at) => from + at),
    } as never)
    const service = table.services[0]!
    const parts = { connections: 1, endpoints: this.table, worker: 0, nowUs: this.nowUs }
    const states = service.endpoints.map(
      (endpoint) => new EndpointState(createClient(service, endpoint, 1), service, endpoint, parts as never),
    )
    this.states.push(...states)
    return states
  }

  /** Endpoints that differ in their weights. */
  weighted(weights: readonly number[]): EndpointState[] {
    return this.endpoints(weights.map((weight, at) => ({ url: `http://h${at}`, weight })))
  }

  async close(): Promise<void> {
    await Promise.all(this.states.map((state) => state.destroy()))
  }
}

export const candidatesOf = (states: readonly EndpointState[]): Candidates =>
  new Candidates(
    states,
    states.map(({ endpoint }) => endpoint.weight),
  )

/** So many requests are in flight from now on. */
export function load(state: EndpointState, requests: number): void {
  while (state.inFlight < requests) state.begin(true)
  while (state.inFlight > requests) state.end(false, true)
}

/** A request that is answered after this time. */
export function answer(state: EndpointState, latencyUs: number, failed = false): void {
  state.begin(true)
  state.answered(latencyUs)
  state.end(failed, false)
}

/** Mulberry32: the same numbers for the same seed. */
export function seeded(seed: number): Random {
  let state = seed
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let word = Math.imul(state ^ (state >>> 15), state | 1)
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61)
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32
  }
}
