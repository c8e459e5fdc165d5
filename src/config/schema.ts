// The schema of the configuration file: every option with its type, default, unit, limit and meaning, in the files of
// schema/ by topic. The types, the JSON Schema that editors use (`tidegate schema`) and the documentation come from
// here. Environment settings are in settings.ts; references.ts checks what one entry says of another.
import { z } from 'zod'
import { apiKeysSchema, consumerSchema, httpSignatureSchema, issuerSchema, replaySchema } from './schema/callers.js'
import { limitSchema } from './schema/limits.js'
import { routeSchema } from './schema/routes.js'
import { serviceSchema } from './schema/services.js'
import { sheddingSchema } from './schema/shedding.js'
import { tlsSchema } from './schema/tls.js'
import { address, named } from './schema/values.js'

const pathsSchema = z
  .strictObject({
    mergeSlashes: z.boolean().default(true).describe('Treat // as / (like merge_slashes in nginx and Envoy).'),
    escapedSlashes: z
      .enum(['refuse', 'keep'])
      .default('refuse')
      .describe('%2F and %5C in a path: refuse with 400, or keep them, for services that do not decode them.'),
  })
  .describe(
    'How request paths are interpreted. Dot segments and needless escapes are always resolved; the result selects the route and is forwarded.',
  )

export const configSchema = z
  .strictObject({
    consumers: named(consumerSchema).default({}).describe('Consumers (known callers), by name.'),
    apiKeys: apiKeysSchema.prefault({}),
    jwt: named(issuerSchema).default({}).describe('Trusted issuers of JSON Web Tokens (RFC 7519), by name.'),
    httpSignature: httpSignatureSchema.optional(),
    replay: replaySchema
      .default('allow')
      .describe(
        'once: each signature is accepted once. allow: a signature is accepted until it expires. A route may override this.',
      ),
    services: named(serviceSchema).describe('Services that requests are forwarded to, by name.'),
    limits: named(limitSchema).default({}).describe('Rate limits that routes can share, by name.'),
    routes: z.array(routeSchema).min(1).describe('Routes. The most specific one that matches takes the request.'),
    tls: tlsSchema.optional(),
    shedding: sheddingSchema.prefault({}),
    trustedProxies: z
      .array(address)
      .default([])
      .describe(
        'Addresses and CIDR ranges of trusted proxies in front of the gateway: it trusts their X-Forwarded-For and PROXY headers.',
      ),
    paths: pathsSchema.prefault({}),
    underscoresInHeaders: z
      .enum(['drop', 'refuse', 'allow'])
      .default('drop')
      .describe(
        'Request headers with _ in their name, which many services read as -: drop them, refuse the request with 400, or forward them.',
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
