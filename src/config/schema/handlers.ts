// The types of the keys that choose a handler, for each place in which the kind can be chosen. What the kinds are is in
// ../handlers.ts.
import { z } from 'zod'
import {
  type HandlerKind,
  type HandlerPlace,
  type PROXY,
  registerHandlerKind,
  type SPLIT,
  type STATIC,
} from '../handlers.js'
import { splitSchema } from './splits.js'
import { headerName, integer, name } from './values.js'

type Keys = Readonly<Record<string, z.ZodType>>

/** Header fields that the gateway writes itself. */
const GATEWAYS_OWN = new Set([
  'connection',
  'content-length',
  'transfer-encoding',
  'date',
  'x-rid',
  'x-tidegate-fallback',
])

/** A key of a kind's list for that place needs a type here. */
type TypesOf<Kind extends HandlerKind, Place extends HandlerPlace> = Record<Kind['keys'][Place][number], z.ZodType>

export const routeKeys = {
  service: name
    .optional()
    .describe('The service that gets the requests: a key of services. Needed where there is no split.'),
  split: splitSchema.optional(),
} satisfies TypesOf<typeof PROXY, 'route'> & TypesOf<typeof SPLIT, 'route'>

export const fallbackKeys = {
  service: name
    .optional()
    .describe('Forward to this service instead (a key of services), if no part of the request body is gone.'),
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
    .describe('File with the body of a static response, relative to this file. Read at start and with each reload.'),
} satisfies TypesOf<typeof PROXY, 'fallback'> & TypesOf<typeof STATIC, 'fallback'>

const added = { route: {}, fallback: {} } satisfies Record<HandlerPlace, Keys>

/** A kind together with the types of its keys. */
type TypedKind = Omit<HandlerKind, 'keys'> & { readonly keys: Readonly<Record<HandlerPlace, Keys>> }

/** Adds a kind, and its keys to the configuration language. Call it before the first configuration is read. */
export function addHandlerKind(kind: TypedKind): void {
  const { route, fallback } = kind.keys
  registerHandlerKind({ ...kind, keys: { route: Object.keys(route), fallback: Object.keys(fallback) } })
  for (const place of ['route', 'fallback'] as const) {
    for (const [key, type] of Object.entries(kind.keys[place])) Object.assign(added[place], { [key]: type.optional() })
  }
}

/** The keys of the kinds that were added. The compiler does not know their types. */
export function addedKeys(place: HandlerPlace): object {
  return added[place]
}
