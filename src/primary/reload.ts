// The configuration from one generation to the next: read anew, checked and compiled here, given its places in the
// shared tables, and then served by every worker. What cannot be served changes nothing. Between reloads, the
// endpoints of a service may change by themselves. In the primary; sees no request.
import { compile, type RouteTable, type Service } from '../config/compile.js'
import { diffConfigs } from '../config/diff.js'
import type { EndpointConfig } from '../config/endpoint.js'
import { type EndpointInput, endpointList } from '../config/endpoint-list.js'
import { ConfigError, type Loaded } from '../config/load.js'
import type { Config } from '../config/schema.js'
import type { Settings } from '../config/settings.js'
import type { Logger } from '../telemetry/log.js'
import type { EndpointsMessage, Generation } from '../worker/messages.js'
import type { Places } from './places.js'

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
  readonly places: Places
  readonly log: Logger
  readonly onBegin: () => void
  readonly onEnd: () => void
  /** Resolves when all workers serve it. */
  readonly publish: (generation: Generation) => Promise<void>
  /** Resolves when no worker gives a request to an endpoint that is gone. */
  readonly publishEndpoints: (message: EndpointsMessage) => Promise<void>
}

export class Reloader {
  /** The newest one, with the endpoints that services have now: what a worker that starts is told. */
  generation: Generation
  table: RouteTable
  last: ReloadResult | null = null
  readonly counts = { ok: 0, failed: 0 }
  private readonly options: ReloaderOptions
  private readonly settings: Settings
  /** As it was read. `generation.config` has the endpoints that were set at run time in it. */
  private fileConfig: Config
  /** Those that were set at run time, by service. */
  private endpointSets: ReadonlyMap<string, readonly EndpointConfig[]> = new Map()
  private running: Promise<ReloadResult> | null = null
  private next: Promise<ReloadResult> | null = null

  /** @throws Error where the first configuration does not fit */
  constructor(options: ReloaderOptions) {
    const { loaded } = options
    this.options = options
    this.settings = loaded.settings
    this.fileConfig = loaded.config
    const first = this.prepare(loaded.config, loaded.origin, 1, 0)
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

  /**
   * Gives a service other endpoints, without another generation. Those that stay keep their connections; those that
   * are gone finish what they have in flight. Reloads keep them, until the file has another list for the service than
   * before.
   *
   * Resolves when no worker gives a request to an endpoint that is gone. Rejects, and nothing has changed, where one
   * is not an endpoint, or shared memory has no room for all of them.
   * @param entries as the configuration spells them; none at all: requests get 503
   */
  async setEndpoints(service: string, entries: readonly EndpointInput[]): Promise<void> {
    const { generation, options } = this
    const before = Object.hasOwn(generation.config.services, service) ? generation.config.services[service] : undefined
    if (before === undefined) throw new Error(`no service is named "${service}"`)
    const endpoints = named(`service "${service}"`, () => endpointList(entries))
    const sets = new Map(this.endpointSets).set(service, endpoints)
    const config = withEndpoints(generation.config, sets)
    const change = generation.change + 1
    // Routes stay where they are; endpoints get their places.
    const draft = compile(config, this.settings, { ...generation.slots, endpoints: [] })
    const slots = named(`service "${service}"`, () => options.places.forEndpoints(draft, service, change))
    const table = compile(config, this.settings, slots)
    this.endpointSets = sets
    this.generation = { ...generation, change, config, slots }
    this.table = table
    const own = table.services.find(({ name }) => name === service) as Service
    const message: EndpointsMessage = {
      type: 'endpoints',
      change,
      service,
      endpoints,
      slots: own.endpoints.map(({ slot }) => slot),
      total: table.endpoints.length,
    }
    options.log.info(
      { service, endpoints: own.endpoints.map(({ origin }) => origin) },
      'endpoints of a service changed',
    )
    await options.publishEndpoints(message)
  }

  private async attempt(by: ReloadResult['by']): Promise<ReloadResult> {
    const { log, load, publish, onBegin, onEnd } = this.options
    onBegin()
    let changes: readonly string[] = []
    let errors: readonly string[] = []
    try {
      const loaded = load()
      changes = diffConfigs(this.fileConfig, loaded.config)
      if (changes.length > 0) {
        const sets = this.keptSets(loaded.config)
        const { number, change } = this.generation
        const next = this.prepare(withEndpoints(loaded.config, sets), loaded.origin, number + 1, change)
        this.fileConfig = loaded.config
        this.endpointSets = sets
        this.generation = next.generation
        this.table = next.table
        await publish(next.generation)
      }
    } catch (error) {
      errors = error instanceof ConfigError ? error.problems : [(error as Error).message]
    }
    const ok = errors.length === 0
    this.counts[ok ? 'ok' : 'failed']++
    const generation = this.generation.number
    if (!ok) log.error({ by, errors }, 'configuration not reloaded: the former one stays in force')
    else if (changes.length === 0) log.info({ by, generation }, 'configuration reloaded: nothing has changed')
    else log.info({ by, generation, changes }, 'configuration reloaded')
    onEnd()
    this.last = { at: new Date().toISOString(), by, ok, generation, changes: ok ? changes : [], errors }
    return this.last
  }

  /** @throws Error where it needs more room in the shared tables than there is; workers know nothing of it then. */
  private prepare(
    config: Config,
    origin: string,
    number: number,
    change: number,
  ): { generation: Generation; table: RouteTable } {
    // Its sockets are open, and workers know from their start how to speak on them. Certificates are another matter
    // (certificate-watch.ts).
    if (JSON.stringify(config.tls) !== JSON.stringify(this.options.loaded.config.tls))
      throw new Error(
        `${origin}: tls: cannot change in a reload; restart the gateway, or start the new one with --takeover`,
      )
    const draft = compile(config, this.settings)
    const slots = named(origin, () => this.options.places.forGeneration(draft, number))
    return { generation: { number, change, config, slots }, table: compile(config, this.settings, slots) }
  }

  /** The sets of services for which the file has the same list as before. */
  private keptSets(config: Config): ReadonlyMap<string, readonly EndpointConfig[]> {
    return new Map(
      [...this.endpointSets].filter(([name]) => {
        const [before, after] = [this.fileConfig.services[name], config.services[name]]
        return after !== undefined && JSON.stringify(before?.endpoints) === JSON.stringify(after.endpoints)
      }),
    )
  }
}

function withEndpoints(config: Config, sets: ReadonlyMap<string, readonly EndpointConfig[]>): Config {
  const services = Object.entries(config.services).map(([name, service]) => {
    const endpoints = sets.get(name)
    return [name, endpoints === undefined ? service : { ...service, endpoints: [...endpoints] }] as const
  })
  return { ...config, services: Object.fromEntries(services) }
}

/** Says in an error what it is about. */
function named<T>(what: string, give: () => T): T {
  try {
    return give()
  } catch (error) {
    throw new Error(`${what}: ${(error as Error).message}`)
  }
}
