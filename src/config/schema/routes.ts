// Options of routes: what a route matches, whom it lets in, what it changes, and its fallback when the service fails.
import { z } from 'zod'
import { CREDENTIAL_KINDS } from '../credentials.js'
import { choiceProblems } from '../handlers.js'
import { patternProblem } from '../patterns.js'
import { httpSignatureSchema, replaySchema } from './callers.js'
import { addedKeys, fallbackKeys, routeKeys } from './handlers.js'
import { hedgeSchema } from './hedge.js'
import { inlineLimit } from './limits.js'
import { importance } from './shedding.js'
import { mirrorKey, stickyKey } from './splits.js'
import {
  address,
  duration,
  HOUR_MS,
  headerName,
  host,
  integer,
  listOf,
  method,
  name,
  oneOrMore,
  size,
} from './values.js'

const path = z.string().superRefine((text, context) => {
  const problem = patternProblem(text)
  if (problem !== null) context.addIssue(problem)
})

const matchSchema = z
  .strictObject({
    host: oneOrMore(host)
      .optional()
      .describe('Host names: demo.i.com, or *.i.com for every name below i.com (not i.com itself). Default: any host.'),
    path: path
      .optional()
      .describe(
        "Path prefix, by segments: /api matches /api and /api/x, not /apix. ':id' matches one segment. Default /.",
      ),
    exactPath: path.optional().describe('The whole path must match. Use it in place of path.'),
    caseInsensitive: z
      .boolean()
      .optional()
      .describe('Match the letters A to Z of the path in either case, for services that ignore case. Default false.'),
    trailingSlash: z
      .enum(['strict', 'ignore'])
      .optional()
      .describe(
        'ignore: exactPath matches with and without a trailing slash, for services that treat both alike. Default strict.',
      ),
    methods: listOf(method).optional().describe('Methods. Default: any. GET does not include HEAD.'),
    headers: z
      .record(headerName, z.string())
      .optional()
      .describe('Headers and the exact values they must have (case-sensitive; of several, the first counts).'),
  })
  .refine((match) => match.path === undefined || match.exactPath === undefined, {
    path: ['exactPath'],
    error: 'cannot stand next to path',
  })
  .describe(
    'Which requests the route takes: everything given must match. The most specific route wins, see `tidegate routes`.',
  )

const fallbackSchema = () =>
  z
    .strictObject({ ...fallbackKeys, ...addedKeys('fallback') })
    .superRefine((fallback, context) => {
      for (const { key, message } of choiceProblems(fallback, 'fallback'))
        context.addIssue({ code: 'custom', path: key, message })
      if (fallback.body !== undefined && fallback.file !== undefined) {
        context.addIssue({ code: 'custom', path: ['file'], message: 'cannot stand next to body' })
      }
    })
    .transform(({ body, ...rest }) => ({ ...rest, bodyBase64: Buffer.from(body ?? '', 'utf8').toString('base64') }))
    .describe(
      'What clients get if the breaker is open or the service fails (502, 503 or 504 of the gateway): a static response, or another service. The response carries x-tidegate-fallback.',
    )

const addressesSchema = z
  .strictObject({
    allow: listOf(address).optional().describe('Addresses and CIDR ranges to admit. Default: all.'),
    deny: listOf(address).optional().describe('Addresses and CIDR ranges to refuse, even if allow contains them.'),
  })
  .describe('Client addresses that the route admits. All others get 403, whatever their credentials.')

/** Built on first use, when all kinds of handlers are known. */
export const routeSchema = z.lazy(() =>
  z
    .strictObject({
      name: name
        .optional()
        .describe(
          'Name in logs, metrics and rate-limit state. Default: host and path, made unique. Name a route if its state must survive a change of host or path.',
        ),
      match: matchSchema,
      priority: integer(-1_000_000, 1_000_000)
        .default(0)
        .describe('Order of routes with equally specific paths: the higher priority wins.'),
      importance,
      ...routeKeys,
      ...addedKeys('route'),
      ...stickyKey,
      ...mirrorKey,
      auth: oneOrMore(z.enum([...CREDENTIAL_KINDS, 'none'])).describe(
        'Accepted credential kinds. If a request carries several, the first in this list decides. x-m: an HMAC signature. http-signature: an RFC 9421 signature. none: the route is open to anyone. There is no default, so that no route is open by accident.',
      ),
      allow: listOf(name).optional().describe('Consumers to admit, and groups as group:NAME. Default: every consumer.'),
      addresses: addressesSchema.optional(),
      stripCredentials: z
        .boolean()
        .optional()
        .describe(
          "Remove the credentials before forwarding, because the service could use them to call in the consumer's name. The service gets the consumer in x-consumer-username. Default true.",
        ),
      limits: z
        .array(z.union([name, inlineLimit]))
        .max(15)
        .default([])
        .describe('Limits, each a key of limits or written here. All must admit the request.'),
      signBody: z
        .boolean()
        .optional()
        .describe(
          'For x-m and http-signature: the signature covers the body, so the gateway reads it whole before forwarding. false: bodies stream; with x-m the last signed line is "-", with http-signature Content-Digest is ignored. Default true.',
        ),
      httpSignature: httpSignatureSchema
        .optional()
        .describe(
          'For http-signature: requirements on signatures. Missing options have the value of the top-level httpSignature.',
        ),
      replay: replaySchema
        .optional()
        .describe(
          'For x-m and http-signature. once: each signature is accepted once, over all workers and restarts. Default: the top-level replay.',
        ),
      maxSkew: duration(1000, HOUR_MS)
        .optional()
        .describe("For x-m: greatest difference between x-time and the gateway's clock. Default 300s."),
      trustRid: z.boolean().default(false).describe("Keep the client's x-rid if it is 32 lower-case hex digits."),
      preserveHost: z.boolean().default(false).describe("Forward the client's Host instead of the endpoint's."),
      stripPrefix: z.boolean().default(false).describe('Remove the matched path before forwarding.'),
      rewrite: z
        .string()
        .regex(/^\/[\u0021-\u007e]*$/, "must start with '/' and hold no blanks")
        .refine((text) => !/[?#]/.test(text), 'is a path: no query and no fragment')
        .optional()
        .describe('Replace the matched path with this one.'),
      maxBody: size(2 ** 40)
        .optional()
        .describe(
          'Largest request body; a larger one gets 413. unlimited is possible only if bodies stream. Default TIDEGATE_MAX_BODY_BYTES.',
        ),
      accessLog: z.boolean().default(true).describe('Write an access log line for each request.'),
      hedge: hedgeSchema.optional(),
      fallback: fallbackSchema().optional(),
      logQuery: z.boolean().default(false).describe('Show the query in the access log. Its values may be secrets.'),
    })
    .superRefine((route, context) => {
      for (const { key, message } of choiceProblems(route, 'route'))
        context.addIssue({ code: 'custom', path: key, message })
    })
    .describe('A route: requests that one service, or several, get under one set of rules.'),
)
