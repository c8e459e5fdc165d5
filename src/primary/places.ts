// Which names have which places in the shared tables, and for how long: no place is given to another name while a
// worker may still use it. In the primary, off the request's way.
//
//   A generation uses the places of its services, routes, breakers and endpoints until no worker has requests of it.
//   An endpoint that a service loses at run time keeps its place until every worker has applied that change.
import type { RouteTable, TableSlots } from '../config/compile.js'
import type { SharedState } from './shared-state.js'
import { Slots } from './slots.js'

/** The names that one generation uses in each shared table. */
interface Names {
  readonly generation: number
  readonly services: readonly string[]
  readonly routes: readonly string[]
  readonly branches: readonly string[]
  readonly breakers: readonly string[]
  /** By service. */
  readonly endpoints: Map<string, readonly string[]>
}

export interface PlacesOptions {
  readonly state: SharedState
  /** The oldest generation that some worker may still have requests of. */
  readonly oldestGeneration: () => number
  /** The last change of endpoints that every worker has applied. */
  readonly oldestChange: () => number
  /** Another gateway is about to take over. */
  readonly isChangingHands: () => boolean
}

export class Places {
  private readonly options: PlacesOptions
  private readonly services: Slots
  private readonly routes: Slots
  private readonly endpoints: Slots
  private readonly branches: Slots
  private inUse: Names[] = []
  /** Endpoints that services have lost at run time, and by which change. */
  private lost: { readonly change: number; readonly names: readonly string[] }[] = []

  constructor(options: PlacesOptions) {
    this.options = options
    this.services = new Slots(options.state.bulkheads.services)
    this.routes = new Slots(options.state.spec.routes)
    this.endpoints = new Slots(options.state.spec.endpoints)
    this.branches = new Slots(options.state.spec.branches ?? 0)
  }

  /**
   * The places of a generation that workers will be told of.
   * @throws Error where it needs more room in the shared tables than there is
   */
  forGeneration(table: RouteTable, generation: number): TableSlots {
    const { state, oldestGeneration, isChangingHands } = this.options
    const { bulkheads, counters, branches, breakers, spec } = state
    const names: Names = {
      generation,
      services: table.services.map(({ name }) => name),
      routes: table.routes.map(({ name }) => name),
      branches: table.branches.map(({ kind, route, service }) => `${kind} ${route} ${service}`),
      breakers: table.services.filter(({ breaker }) => breaker !== null).map(({ name }) => name),
      endpoints: endpointNames(table),
    }
    this.inUse = this.inUse.filter((one) => one.generation >= Math.min(oldestGeneration(), generation - 1))
    const used = (key: 'services' | 'routes' | 'branches' | 'breakers') =>
      new Set(this.inUse.flatMap((one) => one[key]))
    const slots = {
      services: fits(
        this.services.assign(names.services, used('services'), (slot) => bulkheads.clear(slot)),
        'services',
        bulkheads.services,
      ),
      routes: fits(
        this.routes.assign(names.routes, used('routes'), (slot) => counters.clear(slot)),
        'routes',
        spec.routes,
      ),
      endpoints: this.endpointSlots(names.endpoints),
      branches: fits(
        this.branches.assign(names.branches, used('branches'), (slot) => branches.clear(slot)),
        'splits and mirrors',
        this.branches.capacity,
      ),
    }
    // Which breakers workers of another primary use is not known.
    const hasStrangers = state.hasOrphans() || isChangingHands()
    fits(
      breakers.provide(names.breakers, hasStrangers ? null : used('breakers')) || null,
      'breakers',
      breakers.capacity,
    )
    this.inUse.push(names)
    return slots
  }

  /**
   * The places of the newest generation once a service has other endpoints, which then are those of older generations
   * too.
   * @param table the newest generation with these endpoints
   * @param change counts up; endpoints that are lost keep their places until oldestChange() has reached it
   * @throws Error where there is not enough room; nothing has changed then
   */
  forEndpoints(table: RouteTable, service: string, change: number): TableSlots {
    const endpoints = endpointNames(table)
    const slots = {
      services: table.services.map(({ slot }) => slot),
      routes: table.routes.map(({ slot }) => slot),
      branches: table.branches.map(({ slot }) => slot),
      endpoints: this.endpointSlots(endpoints),
    }
    const now = endpoints.get(service) as readonly string[]
    for (const { endpoints: before } of this.inUse) {
      const names = before.get(service)
      if (names === undefined) continue
      this.lost.push({ change, names: names.filter((name) => !now.includes(name)) })
      before.set(service, now)
    }
    return slots
  }

  /** @throws Error where there is not enough room */
  private endpointSlots(endpoints: Names['endpoints']): readonly number[] {
    const { state, oldestChange } = this.options
    const { endpoints: table, spec } = state
    this.lost = this.lost.filter(({ change, names }) => names.length > 0 && change > oldestChange())
    const used = new Set([
      ...this.inUse.flatMap((one) => [...one.endpoints.values()].flat()),
      ...this.lost.flatMap(({ names }) => names),
    ])
    const names = [...endpoints.values()].flat()
    const slots = fits(this.endpoints.assign(names, used), 'endpoints', spec.endpoints)
    // What an endpoint's health was when some service last had it says nothing of what it is now.
    for (const [at, name] of names.entries()) if (!used.has(name)) table.clear(slots[at] as number)
    // A service that has requests already lets new endpoints start slowly.
    for (const [service, own] of endpoints) {
      if (!this.inUse.some((one) => (one.endpoints.get(service) ?? []).length > 0)) continue
      for (const name of own) if (!used.has(name)) table.setReturned(slots[names.indexOf(name)] as number)
    }
    return slots
  }
}

function fits<T>(given: T | null, what: string, room: number): T {
  if (given !== null) return given
  throw new Error(`the ${what} need more room in shared memory than this start made (${room}): restart`)
}

/** An endpoint is known by its service and origin; one that is listed twice, by which of them it is. */
function endpointNames({ services }: RouteTable): Map<string, readonly string[]> {
  return new Map(
    services.map(({ name, endpoints }) => [
      name,
      endpoints.map(
        ({ origin }, at) => `${name} ${origin} ${endpoints.slice(0, at).filter((one) => one.origin === origin).length}`,
      ),
    ]),
  )
}
