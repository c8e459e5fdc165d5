// The schema of the configuration file: every option with its type, default, unit, limit and meaning, in the files of schema/ by topic.
// The types, the JSON Schema that editors use (`tidegate schema`) and the documentation come from here. Environment settings are in
// settings.ts; references.ts checks what one entry says of another.
import { z } from 'zod'
import { apiKeysSchema, consumerSchema, httpSignatureSchema, issuerSchema, replaySchema } from './schema/callers.js'
import { limitSchema } from './schema/limits.js'
import { routeSchema } from './schema/routes.js'
import { serviceSchema } from './schema/services.js'
import { tlsSchema } from './schema/tls.js'
import { address, named } from './schema/values.js'

const pathsSchema = z
  .strictObject({
    mergeSlashes: z.boolean().default(true).describe('// is / (nginx merge_slashes, Envoy the same).'),
    escapedSlashes: z
      .enum(['refuse', 'keep'])
      .default('refuse')
      .describe('%2F and %5C in a path: refused with 400, or kept as they are, for services that do not decode them.'),
  })
  .describe(
    'How request paths are read. Dot segments and needless escapes are always resolved; the result decides the route and is forwarded.',
  )

export const configSchema = z
  .strictObject({
    consumers: named(consumerSchema).default({}).describe('Who may call, by name.'),
    apiKeys: apiKeysSchema.prefault({}),
    jwt: named(issuerSchema).default({}).describe('Issuers of JSON Web Tokens (RFC 7519), by name.'),
    httpSignature: httpSignatureSchema.optional(),
    replay: replaySchema
      .default('allow')
      .describe('once: a signature is accepted once. allow: again and again until it is stale. A route may differ.'),
    services: named(serviceSchema).describe('What requests are forwarded to, by name.'),
    limits: named(limitSchema).default({}).describe('Rate limits that several routes share, by name.'),
    routes: z.array(routeSchema).min(1).describe('What goes where.'),
    tls: tlsSchema.optional(),
    trustedProxies: z
      .array(address)
      .default([])
      .describe(
        'Addresses and CIDR ranges of the proxies in front: their X-Forwarded-For is believed, and their PROXY header.',
      ),
    paths: pathsSchema.prefault({}),
    underscoresInHeaders: z
      .enum(['drop', 'refuse', 'allow'])
      .default('drop')
      .describe(
        'Header fields with a _ in their name, which many a service takes for a -: left out, refused with 400, or passed on.',
      ),
  })
  .meta({ title: 'Tidegate configuration' })

export type Config = z.output<typeof configSchema>
export type RouteConfig = Config['routes'][number]
export type LimitConfig = Config['limits'][string]

/** JSON Schema (draft 2020-12) of the file as it is written. */
export function jsonSchema(): object {
  return z.toJSONSchema(configSchema, { io: 'input' })
}
