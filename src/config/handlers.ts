// The kinds of handlers that can answer a request: which keys of a route, or of its fallback, choose a kind, and what
// they are compiled to. The code that answers is in src/handlers/; handlers/kinds.ts lists it by the same names.
// Start-up only.
import { z } from 'zod'
import type { HandlerRules, ProxyRules, Service, StaticRules } from './route-table.js'
import { headerName, integer, name } from './schema/values.js'

type Keys = Readonly<Record<string, z.ZodType>>

/** Where a handler is chosen. The fallback of a route answers when the route's handler fails. */
export type HandlerPlace = 'route' | 'fallback'

/** A route or a fallback: the keys that the kind has there, and keys that are not the kind's. */
type Entry = Readonly<Record<string, unknown>>

export interface HandlerKind {
  readonly name: string
  /** The keys that choose this kind, and the types of their values. A place without keys cannot have the kind. */
  readonly keys: Readonly<Record<HandlerPlace, Keys>>
  /**
   * The services that an entry names, each with the path of its key. Called for entries that the schema refused,
   * too.
   */
  servicesOf?(entry: Entry): readonly { readonly path: readonly PropertyKey[]; readonly service: unknown }[]
  compile(entry: Entry, services: ReadonlyMap<string, Service>): HandlerRules
  /** As `tidegate routes` names it. */
  describe(rules: HandlerRules): string
}

/** Header fields that the gateway writes itself. */
const GATEWAYS_OWN = new Set([
  'connection',
  'content-length',
  'transfer-encoding',
  'date',
  'x-rid',
  'x-tidegate-fallback',
])

/** Forwards the request to a service. */
export const PROXY = {
  name: 'proxy',
  keys: {
    route: { service: name.describe('The service that gets the requests: a key of services.') },
    fallback: {
      service: name
        .optional()
        .describe('Forward to this service instead (a key of services), if no part of the request body is gone.'),
    },
  },
  servicesOf: ({ service }: Entry) => [{ path: ['service'], service }],
  compile: ({ service }: Entry, services): ProxyRules => ({
    kind: 'proxy',
    service: services.get(service as string) as Service,
  }),
  describe: ({ service }: ProxyRules) => service.name,
} as const satisfies HandlerKind

/** Sends the same response each time. */
export const STATIC = {
  name: 'static',
  keys: {
    route: {},
    fallback: {
      status: integer(200, 599).optional().describe('Status of a static response. Default 200.'),
      headers: z
        .record(headerName, z.string().regex(/^[\u0020-\u007e]*$/, 'is not a header value: printable ASCII'))
        .refine((headers) => Object.entries(headers).flat().join('').length <= 4096, 'is over 4 KiB in all')
        .superRefine((headers, context) => {
          for (const name of Object.keys(headers)) {
            if (!GATEWAYS_OWN.has(name)) continue
            context.addIssue({ code: 'custom', path: [name], message: 'is written by the gateway itself' })
          }
        })
        .optional()
        .describe('Headers of a static response.'),
      body: z.string().optional().describe('Body of a static response.'),
      file: z
        .string()
        .min(1)
        .optional()
        .describe(
          'File with the body of a static response, relative to this file. Read at start and with each reload.',
        ),
    },
  },
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

const kinds: HandlerKind[] = [PROXY, STATIC]
const added = { route: {}, fallback: {} } satisfies Record<HandlerPlace, Keys>

/** Adds a kind, and its keys to the configuration language. Call it before the first configuration is read. */
export function addHandlerKind(kind: HandlerKind): void {
  kinds.push(kind)
  for (const place of ['route', 'fallback'] as const) {
    for (const [key, type] of Object.entries(kind.keys[place])) Object.assign(added[place], { [key]: type.optional() })
  }
}

/** The keys of the kinds that were added. The compiler does not know their types. */
export function addedKeys(place: HandlerPlace): object {
  return added[place]
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
  return Object.keys(keys[place]).find((key) => entry[key] !== undefined)
}

/** `service, or status, headers, body or file`. */
function choices(place: HandlerPlace): string {
  const lists = kinds.map(({ keys }) => Object.keys(keys[place])).filter((keys) => keys.length > 0)
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
