// Options of routes: what a route matches, whom it lets in, what it changes, and its fallback when the service fails.
import { z } from 'zod'
import { CREDENTIAL_KINDS } from '../credentials.js'
import { patternProblem } from '../patterns.js'
import { httpSignatureSchema, replaySchema } from './callers.js'
import { inlineLimit } from './limits.js'
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
      .describe('demo.i.com, or *.i.com for every name below it (not i.com itself); one or a list. Absent: any.'),
    path: path
      .optional()
      .describe(
        "Prefix on segment boundaries: /api matches /api and /api/x, not /apix. ':id' stands for one segment. Default /.",
      ),
    exactPath: path.optional().describe('The whole path, in place of path.'),
    caseInsensitive: z
      .boolean()
      .optional()
      .describe('Letters of the path (A to Z) match in either case, for services that do not mind it. Default false.'),
    trailingSlash: z
      .enum(['strict', 'ignore'])
      .optional()
      .describe(
        'ignore: exactPath matches with a slash behind it and without, for services that serve both alike. Default strict.',
      ),
    methods: listOf(method).optional().describe('Absent: any. GET does not include HEAD.'),
    headers: z
      .record(headerName, z.string())
      .optional()
      .describe('Headers that must have exactly this value (case-sensitive, the first of several counts).'),
  })
  .refine((match) => match.path === undefined || match.exactPath === undefined, {
    path: ['exactPath'],
    error: 'cannot stand next to path',
  })
  .describe('Which requests: all that is given must fit. The most specific route wins, see `tidegate routes`.')

const fallbackSchema = z
  .strictObject({
    service: name
      .optional()
      .describe('Forward there instead: a key of services. Only requests whose body is still whole.'),
    status: integer(200, 599).optional().describe('Status of a static answer. Default 200.'),
    headers: z
      .record(headerName, z.string().regex(/^[\u0020-\u007e]*$/, 'is not a header value: printable ASCII'))
      .refine((headers) => Object.entries(headers).flat().join('').length <= 4096, 'is over 4 KiB in all')
      .optional()
      .describe('Header fields of a static answer.'),
    body: z.string().optional().describe('Its body.'),
    file: z
      .string()
      .min(1)
      .optional()
      .describe('Its body from a file, relative to this one; read at start and with each reload.'),
  })
  .superRefine((fallback, context) => {
    const answers = (['status', 'headers', 'body', 'file'] as const).filter((key) => fallback[key] !== undefined)
    if (fallback.service === undefined && answers.length === 0)
      context.addIssue('needs service, or status, headers, body or file')
    if (fallback.service !== undefined && answers.length > 0) {
      context.addIssue({ code: 'custom', path: [answers[0] as string], message: 'cannot stand next to service' })
    }
    if (fallback.body !== undefined && fallback.file !== undefined) {
      context.addIssue({ code: 'custom', path: ['file'], message: 'cannot stand next to body' })
    }
    for (const name of Object.keys(fallback.headers ?? {})) {
      if (!GATEWAYS_OWN.has(name)) continue
      context.addIssue({ code: 'custom', path: ['headers', name], message: 'is written by the gateway itself' })
    }
  })
  .transform(({ body, ...rest }) => ({ ...rest, bodyBase64: Buffer.from(body ?? '', 'utf8').toString('base64') }))
  .describe(
    'What the caller gets while the breaker is open or the service fails (502, 503, 504 of the gateway): a static answer, or another service. Marked with x-tidegate-fallback.',
  )

/** Response headers that a fallback cannot set. */
const GATEWAYS_OWN = new Set([
  'connection',
  'content-length',
  'transfer-encoding',
  'date',
  'x-rid',
  'x-tidegate-fallback',
])

const addressesSchema = z
  .strictObject({
    allow: listOf(address).optional().describe('Addresses and CIDR ranges let in. Absent: all.'),
    deny: listOf(address).optional().describe('Addresses and CIDR ranges refused, also out of those in allow.'),
  })
  .describe("Whose requests are let in, by the client's address; all others get 403, whatever they present.")

export const routeSchema = z
  .strictObject({
    name: name
      .optional()
      .describe(
        'For logs, metrics and rate-limit state. Default: host and path, made unique; name a route whose state must survive a change of these.',
      ),
    match: matchSchema,
    priority: integer(-1_000_000, 1_000_000)
      .default(0)
      .describe('Decides between routes with equally specific paths: higher first.'),
    service: name.describe('A key of services.'),
    auth: oneOrMore(z.enum([...CREDENTIAL_KINDS, 'none'])).describe(
      'How callers are known, one or several ways: of those a request has credentials for, the first in this list decides. x-m: they sign. http-signature: they sign as RFC 9421 says. none: open to anyone. There is no default, so that no route is open by accident.',
    ),
    allow: listOf(name).optional().describe('Consumers let in, and groups as group:NAME. Absent: every consumer.'),
    addresses: addressesSchema.optional(),
    stripCredentials: z
      .boolean()
      .optional()
      .describe(
        "Takes off what the route's kinds of credentials are carried in before forwarding: whoever has them could call in the consumer's name. The service is told the consumer in x-consumer-username. Default true.",
      ),
    limits: z
      .array(z.union([name, inlineLimit]))
      .max(15)
      .default([])
      .describe('Keys of limits, or limits written here. All must admit.'),
    signBody: z
      .boolean()
      .optional()
      .describe(
        'With x-m and http-signature: the signature covers the body, which is then read whole before it is forwarded. false: bodies stream; with x-m the last signed line is "-", with http-signature Content-Digest is not looked at. Default true.',
      ),
    httpSignature: httpSignatureSchema
      .optional()
      .describe(
        'With http-signature: what signatures must be like; what is not given here is as for the whole gateway.',
      ),
    replay: replaySchema
      .optional()
      .describe(
        'once: with x-m and http-signature, a signature is accepted once, over all workers and restarts. Default: as for the whole gateway.',
      ),
    maxSkew: duration(1000, HOUR_MS).optional().describe('With x-m: how far x-time may be off. Default 300s.'),
    trustRid: z.boolean().default(false).describe("Keeps the caller's own x-rid where it is 32 lower-case hex digits."),
    preserveHost: z.boolean().default(false).describe("Forwards the caller's Host instead of the endpoint's."),
    stripPrefix: z.boolean().default(false).describe('Takes the matched path off before forwarding.'),
    rewrite: z
      .string()
      .regex(/^\/[\u0021-\u007e]*$/, "must start with '/' and hold no blanks")
      .refine((text) => !/[?#]/.test(text), 'is a path: no query and no fragment')
      .optional()
      .describe('Puts this in place of the matched path.'),
    maxBody: size(2 ** 40)
      .optional()
      .describe(
        'Largest request body; more gets 413. unlimited only where bodies stream. Default TIDEGATE_MAX_BODY_BYTES.',
      ),
    accessLog: z.boolean().default(true).describe('Writes an access line for each exchange.'),
    fallback: fallbackSchema.optional(),
    logQuery: z.boolean().default(false).describe('Shows the query in it; values may be secrets.'),
  })
  .describe('Requests that go to one service under one set of rules.')
