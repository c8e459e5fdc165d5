// The kinds of handlers that can answer a request: which keys of a route, or of its fallback, choose a kind, and what
// they are compiled to. The types of these keys are in schema/handlers.ts: workers load this file, and do without zod.
// The code that answers is in src/handlers/; handlers/kinds.ts lists it by the same names. Start-up only.
import type { HandlerRules, ProxyRules, Service, SplitRules, StaticRules } from './route-table.js'
import { describeSplit, parseRequestKey, splitEntries } from './split.js'

/** Where a handler is chosen. The fallback of a route answers when the route's handler fails. */
export type HandlerPlace = 'route' | 'fallback'

/** A route or a fallback: the keys that the kind has there, and keys that are not the kind's. */
type Entry = Readonly<Record<string, unknown>>

export interface HandlerKind {
  readonly name: string
  /** The keys that choose this kind. A place without keys cannot have the kind. */
  readonly keys: Readonly<Record<HandlerPlace, readonly string[]>>
  /**
   * The services that an entry names, each with the path of its key. Called for entries that the schema refused,
   * too.
   */
  servicesOf?(entry: Entry): readonly { readonly path: readonly PropertyKey[]; readonly service: unknown }[]
  compile(entry: Entry, services: ReadonlyMap<string, Service>): HandlerRules
  /** As `tidegate routes` names it. */
  describe(rules: HandlerRules): string
}

/** Forwards the request to a service. */
export const PROXY = {
  name: 'proxy',
  keys: { route: ['service'], fallback: ['service'] },
  servicesOf: ({ service }: Entry) => [{ path: ['service'], service }],
  compile: ({ service }: Entry, services): ProxyRules => ({
    kind: 'proxy',
    service: services.get(service as string) as Service,
  }),
  describe: ({ service }: ProxyRules) => service.name,
} as const satisfies HandlerKind

/** Forwards each request to one of several services. */
export const SPLIT = {
  name: 'split',
  keys: { route: ['split'], fallback: [] },
  servicesOf: ({ split }: Entry) => splitEntries(split),
  compile: ({ split, sticky }: Entry, services): SplitRules => ({
    kind: 'split',
    service: null,
    sides: (split as { service: string; weight: number }[]).map(({ service, weight }) => ({
      service: services.get(service) as Service,
      weight,
    })),
    sticky: sticky === undefined ? null : parseRequestKey(sticky as string),
  }),
  describe: describeSplit,
} as const satisfies HandlerKind

/** Sends the same response each time. */
export const STATIC = {
  name: 'static',
  keys: { route: [], fallback: ['status', 'headers', 'body', 'file'] },
  compile: (entry: Entry): StaticRules => {
    const { status, headers, bodyBase64 } = entry as Partial<Record<string, never>>
    return {
      kind: 'static',
      service: null,
      status: status ?? 200,
      headers: Object.entries<string>(headers ?? {}).flat(),
      body: Buffer.from(bodyBase64 ?? '', 'base64'),
    }
  },
  describe: ({ status }: StaticRules) => `static ${status}`,
} as const satisfies HandlerKind

const kinds: HandlerKind[] = [PROXY, SPLIT, STATIC]

/**
 * Adds a kind; schema/handlers.ts adds the types of its keys as well. Call it before the first configuration is read.
 */
export function registerHandlerKind(kind: HandlerKind): void {
  kinds.push(kind)
}

/** What is wrong with an entry that chooses no kind, or more than one. */
export function choiceProblems(
  entry: Entry,
  place: HandlerPlace,
): { readonly key: string[]; readonly message: string }[] {
  const [first, ...others] = kinds.filter((kind) => givenKey(kind, entry, place) !== undefined)
  if (first === undefined) return [{ key: [], message: `needs ${choices(place)}` }]
  return others.map((other) => ({
    key: [givenKey(other, entry, place)!],
    message: `cannot stand next to ${givenKey(first, entry, place)}`,
  }))
}

function givenKey({ keys }: HandlerKind, entry: Entry, place: HandlerPlace): string | undefined {
  return keys[place].find((key) => entry[key] !== undefined)
}

/** The keys of all kinds in a sentence: `service, or status, headers, body or file`. */
export function choices(place: HandlerPlace): string {
  const lists = kinds.map(({ keys }) => keys[place]).filter((keys) => keys.length > 0)
  return lists.map((keys) => keys.join(', ').replace(/, ([^,]*)$/, ' or $1')).join(', or ')
}

/** All services that an entry names, whatever kind it is for. */
export function servicesNamedIn(entry: unknown): readonly { path: readonly PropertyKey[]; service: unknown }[] {
  return kinds.flatMap((kind) => kind.servicesOf?.(Object(entry)) ?? [])
}

/** Takes an entry in which choiceProblems finds nothing. */
export function compileHandler(
  entry: Entry,
  place: HandlerPlace,
  services: ReadonlyMap<string, Service>,
): HandlerRules {
  // The schema turns the body of a static fallback into bodyBase64, which is nobody's key: there may be no other one.
  const kind = kinds.find((kind) => givenKey(kind, entry, place) !== undefined) ?? STATIC
  return kind.compile(entry, services)
}

export function describeHandler(rules: HandlerRules): string {
  return kinds.find(({ name }) => name === rules.kind)!.describe(rules)
}
