// The clients of all endpoints a worker speaks to, kept from one generation of the configuration to the next: an endpoint that is still
// there, with the same settings, keeps its connections. Off the request's way, but for what a request reads of a HeldClient.
import type { Dispatcher } from 'undici'
import type { Endpoint, Service } from '../config/compile.js'
import { clientKey, createClient } from './client.js'
import { UploadPlaces } from './upload-places.js'

export interface HeldClient {
  readonly dispatcher: Dispatcher
  /** Requests of any generation. */
  inFlight: number
  readonly uploads: UploadPlaces
}

interface Entry extends HeldClient {
  readonly key: string
  generations: number
}

export class Clients {
  private readonly entries = new Map<string, Entry>()

  /** `connections`: most there are to one endpoint. */
  constructor(private readonly connections: number) {}

  /** One for each endpoint of a table, in that order. Each has one release. */
  take(services: readonly Service[]): HeldClient[] {
    // Services that name the same endpoint have a client each, as long as there are so many of them.
    const times = new Map<string, number>()
    return services.flatMap((service) =>
      service.endpoints.map((endpoint) => {
        const settings = clientKey(service, endpoint)
        const before = times.get(settings) ?? 0
        times.set(settings, before + 1)
        return this.hold(`${before} ${settings}`, service, endpoint)
      }),
    )
  }

  private hold(key: string, service: Service, endpoint: Endpoint): HeldClient {
    let entry = this.entries.get(key)
    if (entry === undefined) {
      const dispatcher = createClient(service, endpoint, this.connections)
      entry = { key, dispatcher, inFlight: 0, uploads: new UploadPlaces(this.connections), generations: 0 }
      this.entries.set(key, entry)
    }
    entry.generations++
    return entry
  }

  /** The last generation that had it has no requests left: its connections close. */
  release(clients: readonly HeldClient[]): void {
    for (const client of clients) {
      const entry = client as Entry
      if (--entry.generations > 0) continue
      this.entries.delete(entry.key)
      void entry.dispatcher.close()
    }
  }

  async close(): Promise<void> {
    await Promise.all([...this.entries.values()].map(({ dispatcher }) => dispatcher.destroy()))
  }
}
