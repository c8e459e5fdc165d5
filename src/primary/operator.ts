// What an operator has decided over the head of the rules: breakers that are held, and endpoints that are drained. Both
// stay so over a reload, a restart, a crash and a takeover, until somebody takes them back, and each start and reload
// says so in the log. In the primary; sees no request.
import type { Service } from '../config/compile.js'
import { endpointAddress, endpointProblem } from '../config/endpoint.js'
import { OUT } from '../state/endpoint-table.js'
import type { Logger } from '../telemetry/log.js'
import type { SharedState } from './shared-state.js'

export interface OperatorOptions {
  readonly state: SharedState
  /** Those of the newest generation, with the endpoints that they have now. */
  readonly services: () => readonly Service[]
  readonly log: Logger
}

export type DrainResult =
  | { readonly endpoint: string }
  /** Nothing was changed, and why. */
  | { readonly refused: 'unknown' | 'full'; readonly why: string }

export class Operator {
  private readonly options: OperatorOptions

  constructor(options: OperatorOptions) {
    this.options = options
  }

  /** Null releases the breaker. False: no service of this name has one. */
  holdBreaker(name: string, as: 'open' | 'closed' | null): boolean {
    const { state, services, log } = this.options
    if (!services().some((one) => one.name === name && one.breaker !== null)) return false
    const change = state.breakers.record(name).hold(as, state.segment.nowUs())
    if (change === null) return true
    if (as === null) log.warn({ service: name, state: change.to }, 'breaker released by an operator')
    else log.warn({ service: name, held: as }, 'breaker held by an operator')
    return true
  }

  /**
   * A drained endpoint gets no new request; those in flight end as they would. Takes the drain back with `on` false,
   * also of an endpoint that the service does not have now.
   */
  drain(name: string, endpoint: string, on: boolean): DrainResult {
    const { state, services, log } = this.options
    const origin = endpointProblem(endpoint) === null ? endpointAddress(endpoint).origin : endpoint
    const service = services().find((one) => one.name === name)
    const known = service?.endpoints.map((one) => one.origin) ?? []
    if (!known.includes(origin) && (on || !state.drains.has(name, origin))) {
      const why =
        service === undefined
          ? `no service is named "${name}"; the services are: ${listed(services().map((one) => one.name))}`
          : `the service "${name}" has no endpoint "${endpoint}"; its endpoints are: ${listed(known)}`
      return { refused: 'unknown', why }
    }
    const before = state.drains.has(name, origin)
    if (!on) state.drains.remove(name, origin)
    else if (!state.drains.add({ service: name, origin, sinceUs: state.segment.nowUs() }, (one) => !this.isInUse(one)))
      return { refused: 'full', why: 'no room is left for another drained endpoint: take back one of the others' }
    this.apply()
    if (before !== on)
      log.warn(
        { service: name, endpoint: origin },
        on ? 'endpoint drained by an operator' : 'endpoint no longer drained',
      )
    return { endpoint: origin }
  }

  /** Tells workers, before they know of endpoints that are new to them. */
  apply(): void {
    const { state, services } = this.options
    for (const { name, endpoints } of services())
      for (const { origin, slot } of endpoints)
        state.endpoints.setOut(slot, OUT.drained, state.drains.has(name, origin))
  }

  /** The gateway that was taken over lets nobody change anything any more. */
  takeOver(): void {
    this.options.state.drains.read()
    this.apply()
  }

  /** At a start and after a reload, so that nobody looks for what has been decided on purpose. */
  remind(): void {
    const { state, services, log } = this.options
    const records = state.breakers.records()
    for (const { name, breaker } of services()) {
      const snapshot = breaker === null ? undefined : records.get(name)?.snapshot()
      if (snapshot === undefined || snapshot.held === null) continue
      log.warn(
        { service: name, held: snapshot.held, since: isoOf(snapshot.sinceUs) },
        'breaker is still held by an operator',
      )
    }
    for (const { service, origin, sinceUs } of state.drains.all.filter((one) => this.isInUse(one)))
      log.warn({ service, endpoint: origin, since: isoOf(sinceUs) }, 'endpoint is still drained by an operator')
  }

  private isInUse({ service, origin }: { readonly service: string; readonly origin: string }): boolean {
    const found = this.options.services().find((one) => one.name === service)
    return found?.endpoints.some((one) => one.origin === origin) ?? false
  }
}

function listed(names: readonly string[]): string {
  return names.length === 0 ? 'none' : names.join(', ')
}

/** @param us microseconds on the segment's clock, which runs with the wall clock */
export function isoOf(us: number): string {
  return new Date(us / 1000).toISOString()
}
