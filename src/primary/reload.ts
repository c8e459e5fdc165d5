// The configuration from one generation to the next: read anew, checked and compiled here, given its places in the shared tables, and then
// served by every worker. What cannot be served changes nothing. In the primary; sees no request.
import { compile, type RouteTable } from '../config/compile.js'
import { diffConfigs } from '../config/diff.js'
import { ConfigError, type Loaded } from '../config/load.js'
import type { Settings } from '../config/settings.js'
import type { Logger } from '../telemetry/log.js'
import type { Generation } from '../worker/messages.js'
import type { SharedState } from './shared-state.js'
import { Slots } from './slots.js'

export interface ReloadResult {
  /** ISO 8601. */
  readonly at: string
  readonly by: 'signal' | 'admin' | 'file'
  readonly ok: boolean
  /** What is served now. */
  readonly generation: number
  /** Line by line, as `tidegate diff` prints it. */
  readonly changes: readonly string[]
  /** Each with its key and line; then nothing was changed. */
  readonly errors: readonly string[]
}

export interface ReloaderOptions {
  readonly loaded: Loaded
  /** Reads the same source again. */
  readonly load: () => Loaded
  readonly state: SharedState
  /** Another gateway is about to take over. */
  readonly isChangingHands: () => boolean
  readonly log: Logger
  /** The oldest generation that some worker may still have requests of. */
  readonly oldest: () => number
  readonly onBegin: () => void
  readonly onEnd: () => void
  /** Resolves when all workers serve it. */
  readonly publish: (generation: Generation, table: RouteTable) => Promise<void>
}

/** The names that one generation uses in each shared table. */
interface Names {
  readonly generation: number
  readonly routes: readonly string[]
  readonly endpoints: readonly string[]
  readonly breakers: readonly string[]
}

export class Reloader {
  generation: Generation
  table: RouteTable
  last: ReloadResult | null = null
  readonly counts = { ok: 0, failed: 0 }
  private readonly options: ReloaderOptions
  private readonly settings: Settings
  private readonly routes: Slots
  private readonly endpoints: Slots
  private inUse: Names[] = []
  private running: Promise<ReloadResult> | null = null
  private next: Promise<ReloadResult> | null = null

  /** @throws Error where the first configuration does not fit */
  constructor(options: ReloaderOptions) {
    const { loaded, state } = options
    this.options = options
    this.settings = loaded.settings
    this.routes = new Slots(state.spec.routes)
    this.endpoints = new Slots(state.spec.endpoints)
    const first = this.prepare(loaded, 1)
    this.generation = first.generation
    this.table = first.table
  }

  /** One at a time. Whoever asks while one is under way gets the next one, which reads what is there then. */
  reload(by: ReloadResult['by']): Promise<ReloadResult> {
    if (this.running !== null) {
      this.next ??= this.running.then(() => {
        this.next = null
        return this.reload(by)
      })
      return this.next
    }
    this.running = this.attempt(by).finally(() => {
      this.running = null
    })
    return this.running
  }

  private async attempt(by: ReloadResult['by']): Promise<ReloadResult> {
    const { log, load, publish, onBegin, onEnd } = this.options
    onBegin()
    const before = this.generation
    let changes: readonly string[] = []
    let errors: readonly string[] = []
    try {
      const loaded = load()
      changes = diffConfigs(before.config, loaded.config)
      if (changes.length > 0) {
        const { generation, table } = this.prepare(loaded, before.number + 1)
        this.generation = generation
        this.table = table
        await publish(generation, table)
      }
    } catch (error) {
      errors = error instanceof ConfigError ? error.problems : [(error as Error).message]
    }
    const ok = errors.length === 0
    this.counts[ok ? 'ok' : 'failed']++
    const generation = this.generation.number
    if (!ok) log.error({ by, errors }, 'configuration not reloaded: what was served before is served on')
    else if (changes.length === 0) log.info({ by, generation }, 'configuration reloaded: nothing has changed')
    else log.info({ by, generation, changes }, 'configuration reloaded')
    onEnd()
    this.last = { at: new Date().toISOString(), by, ok, generation, changes: ok ? changes : [], errors }
    return this.last
  }

  /** @throws Error where it needs more room in the shared tables than there is; workers know nothing of it then. */
  private prepare({ config, origin }: Loaded, number: number): { generation: Generation; table: RouteTable } {
    const { state, isChangingHands, oldest } = this.options
    const { health, counters, breakers, spec } = state
    // Its sockets are open, and workers know from their start how to speak on them. Certificates are another matter (certificate-watch.ts).
    if (JSON.stringify(config.tls) !== JSON.stringify(this.options.loaded.config.tls))
      throw new Error(`${origin}: tls: what the listener speaks changes with a restart, or a takeover, alone`)
    const draft = compile(config, this.settings)
    const names: Names = {
      generation: number,
      routes: draft.routes.map(({ name }) => name),
      endpoints: endpointNames(draft),
      breakers: draft.services.filter(({ breaker }) => breaker !== null).map(({ name }) => name),
    }
    this.inUse = this.inUse.filter(({ generation }) => generation >= Math.min(oldest(), number - 1))
    const used = (key: 'routes' | 'endpoints' | 'breakers') => new Set(this.inUse.flatMap((one) => one[key]))
    const fits = <T>(given: T | null, what: string, room: number): T => {
      if (given !== null) return given
      throw new Error(`${origin}: the ${what} need more room in shared memory than this start made (${room}): restart`)
    }
    const routes = this.routes.assign(names.routes, used('routes'), (slot) => counters.clear(slot))
    const endpoints = this.endpoints.assign(names.endpoints, used('endpoints'), (slot) => health.set(slot, 'unknown'))
    const slots = {
      routes: fits(routes, 'routes', spec.routes),
      endpoints: fits(endpoints, 'endpoints', spec.endpoints),
    }
    // Which breakers workers of another primary use is not known.
    const hasStrangers = state.hasOrphans() || isChangingHands()
    const provided = breakers.provide(names.breakers, hasStrangers ? null : used('breakers'))
    fits(provided ? true : null, 'breakers', breakers.capacity)
    this.inUse.push(names)
    return { generation: { number, config, slots }, table: compile(config, this.settings, slots) }
  }
}

/** An endpoint is known by its service and origin; one that is listed twice, by which of them it is. */
function endpointNames({ services }: RouteTable): string[] {
  return services.flatMap(({ name, endpoints }) =>
    endpoints.map(
      ({ origin }, at) => `${name} ${origin} ${endpoints.slice(0, at).filter((one) => one.origin === origin).length}`,
    ),
  )
}
