// The configuration file: every option with its type, default, unit, limit and meaning. The types, the JSON Schema that editors use
// (`tidegate schema`) and the documentation come from here. Environment settings are in settings.ts; what one entry says of another
// (a route of a service, say) is checked in references.ts.
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { patternProblem } from './patterns.js'
import {
  DURATION,
  durationMs,
  formatBytes,
  formatDuration,
  NO_TIMEOUT,
  parseRate,
  RATE,
  type Rate,
  SIZE,
  sizeBytes,
  UNLIMITED_BYTES,
} from './quantities.js'

const HOUR_MS = 3_600_000
const withAlternative = (pattern: RegExp, word: string) => new RegExp(`^${word}$|${pattern.source}`)

const duration = (minMs: number, maxMs: number, none = false) =>
  z
    .string('must be a duration: 500ms, 1s, 2m or 1h')
    .regex(
      none ? withAlternative(DURATION, 'none') : DURATION,
      `is not a duration; write 500ms, 1s, 2m or 1h${none ? ', or none' : ''}`,
    )
    .transform((text, context) => {
      if (text === 'none') return NO_TIMEOUT
      const ms = durationMs(text) as number
      if (ms < minMs || ms > maxMs) {
        context.addIssue(
          `must be between ${formatDuration(minMs)} and ${formatDuration(maxMs)}${none ? ', or none' : ''}`,
        )
      }
      return ms
    })

const size = (maxBytes: number) =>
  z
    .union([z.number(), z.string()])
    .transform((value, context) => {
      if (value === 'unlimited') return UNLIMITED_BYTES
      const bytes = sizeBytes(String(value))
      if (bytes === null) {
        context.addIssue(`is not a size; write bytes, 16KiB, 1MiB or 2GiB, or unlimited`)
        return z.NEVER
      }
      if (bytes > maxBytes) context.addIssue(`must be at most ${formatBytes(maxBytes)}, or unlimited`)
      return bytes
    })
    .meta({ pattern: withAlternative(SIZE, 'unlimited').source })

const integer = (min: number, max: number) => z.int().min(min).max(max)
const ratio = z.number().gt(0).max(1)

const listOf = <T extends z.ZodType>(item: T) => z.array(item).min(1)
/** A list of one may be written without the brackets. */
const oneOrMore = <T extends z.ZodType<unknown, string>>(item: T) =>
  z.union([item, listOf(item)]).transform((value) => (Array.isArray(value) ? value : [value]) as z.output<T>[])

/** Also what x-source may say, and a label in metrics and log lines: nothing in it needs quoting there. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,127}$/
const NAME_RULE = 'a name starts with a letter or digit and goes on with letters, digits and . _ @ : / + - (128 in all)'
const name = z.string().regex(NAME, NAME_RULE)
const named = <T extends z.ZodType>(value: T) => z.record(name, value)

const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
const headerName = z
  .string()
  .regex(TOKEN, 'is not a header name (RFC 9110, 5.1)')
  .transform((text) => text.toLowerCase())
const method = z
  .string()
  .regex(TOKEN, 'is not a method name (RFC 9110, 9.1)')
  .transform((text) => text.toUpperCase())

const secret = z
  .string()
  .min(1)
  .describe('The secret itself, env:NAME for an environment variable, or file:PATH (relative to this file).')

const consumerSchema = z
  .strictObject({
    secret: oneOrMore(secret).describe('One secret, or several while one is being rotated out: each is accepted.'),
    algorithm: z
      .enum(['sha256', 'sha1', 'md5'])
      .default('sha256')
      .describe('Hash of the HMAC. sha1 and md5 are for callers that cannot change.'),
    signs: z
      .enum(['request', 'legacy'])
      .default('request')
      .describe(
        'request: source, time, method, path with query, and body. legacy: source and time alone, which lets whoever sees one request make others until it is stale.',
      ),
  })
  .describe('Someone who calls. The name is what x-source says.')

const endpoint = z
  .string()
  .superRefine((text, context) => {
    const problem = endpointProblem(text)
    if (problem !== null) context.addIssue(problem)
  })
  .describe('http(s)://host[:port], without a path.')

function endpointProblem(text: string): string | null {
  if (!/^https?:\/\//i.test(text)) return 'must be an http:// or https:// URL'
  if (!URL.canParse(text)) return 'is not a URL'
  const url = new URL(text)
  if (url.username !== '' || url.password !== '') return 'must not carry a user name or password'
  if (text.includes('?')) return 'must not have a query'
  if (text.includes('#')) return 'must not have a fragment'
  if (url.pathname !== '/') return `must not have a path (it has "${url.pathname}"); use the route's rewrite`
  return null
}

const breakerSchema = z
  .strictObject({
    window: duration(1000, HOUR_MS).prefault('10s').describe('Sliding window over which calls are counted.'),
    minRequests: integer(1, 1_000_000).default(20).describe('Calls in the window below which the breaker never opens.'),
    failureRatio: ratio.default(0.5).describe('Share of failed calls at which it opens.'),
    slowCall: duration(1, HOUR_MS, true)
      .prefault('none')
      .describe('A call that takes this long is slow; none: no call is.'),
    slowRatio: ratio.default(0.8).describe('Share of slow calls at which it opens.'),
    openFor: duration(100, HOUR_MS)
      .prefault('5s')
      .describe('Time refused before the first probe; doubles while probes fail.'),
    maxOpenFor: duration(100, HOUR_MS).prefault('60s').describe('What openFor doubles up to.'),
    probes: integer(1, 32)
      .default(3)
      .describe('Requests let through to see whether the service is back, over all workers.'),
    ramp: duration(0, HOUR_MS)
      .prefault('10s')
      .describe('Time over which traffic returns from 10 % to 100 % once it is; 0s: at once.'),
    failureStatuses: z
      .array(integer(400, 599))
      .default([502, 503, 504])
      .describe('Statuses that count as failures, next to refused and reset connections and timeouts.'),
  })
  .refine((breaker) => breaker.maxOpenFor >= breaker.openFor, {
    path: ['maxOpenFor'],
    error: 'must be at least openFor',
  })
  .describe('Stops calling a service that fails. Without this key there is no breaker; {} takes all defaults.')

const healthSchema = z
  .strictObject({
    path: z
      .string()
      .regex(/^\/[\u0021-\u007e]*$/, "must start with '/' and hold no blanks")
      .default('/')
      .describe('Asked for with GET; any 2xx is healthy.'),
    interval: duration(100, HOUR_MS).prefault('5s').describe('Time between two checks of an endpoint.'),
    timeout: duration(10, HOUR_MS).prefault('1s').describe('No answer in this time is a failed check.'),
    healthyAfter: integer(1, 100).default(2).describe('Good checks in a row that bring an endpoint back.'),
    unhealthyAfter: integer(1, 100).default(3).describe('Failed checks in a row that take an endpoint out.'),
  })
  .refine((health) => health.timeout <= health.interval, { path: ['timeout'], error: 'must be at most interval' })
  .describe('Active checks of every endpoint. Without this key all are taken to be healthy; {} takes all defaults.')

const timeoutsSchema = z
  .strictObject({
    connect: duration(1, HOUR_MS)
      .prefault('2s')
      .describe('TCP and TLS handshake. A lost SYN is sent again after 1 s: the default leaves room for one.'),
    firstByte: duration(1, HOUR_MS, true)
      .prefault('15s')
      .describe('From the request sent to the head of the answer. 15 s is what Envoy allows a whole exchange.'),
    idle: duration(1, HOUR_MS, true)
      .prefault('60s')
      .describe(
        'Longest silence within the answer, as proxy_read_timeout of nginx. Event streams without heartbeats want none.',
      ),
    total: duration(1, 24 * HOUR_MS, true)
      .prefault('none')
      .describe(
        'From the request to the last byte of the answer. Leave at none for downloads, event streams and long polls.',
      ),
  })
  .describe('Deadlines towards the service. The one that passes first ends the exchange with 504.')

export const serviceSchema = z
  .strictObject({
    endpoints: z
      .array(endpoint)
      .min(1)
      .describe('Where the service listens: scheme, host and port. Requests go to the healthy ones in turn.'),
    timeouts: timeoutsSchema.prefault({}),
    client: z
      .enum(['lean', 'undici'])
      .default('lean')
      .describe(
        'What speaks HTTP to cleartext endpoints: our own client, or undici. https endpoints always get undici.',
      ),
    pipelining: integer(1, 256)
      .default(1)
      .describe(
        'Requests in flight on one connection: above 1, those without a body that may be repeated (RFC 9110, 9.2.2) share connections. For many small, fast answers of one kind.',
      ),
    breaker: breakerSchema.optional(),
    health: healthSchema.optional(),
  })
  .describe('What requests are forwarded to.')

const limitKey = z
  .string()
  .regex(
    /^(consumer|address|route|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$/,
    'is not a key; write consumer, address, route or header:NAME',
  )
  .transform((text) => text.toLowerCase())

const MAX_QUANTITY = 1_000_000_000
const rate = z
  .string('must be a rate: 1000/s, 60/m, 5000/h or 100000/d')
  .regex(RATE, 'is not a rate; write 1000/s, 60/m, 5000/h or 100000/d')
  .transform((text, context): Rate => {
    const parsed = parseRate(text) as Rate
    if (parsed.quantity < 1 || parsed.quantity > MAX_QUANTITY)
      context.addIssue(`must be between 1 and ${MAX_QUANTITY} per unit`)
    // GCRA counts in microseconds: two requests cannot be less than one apart.
    else if (parsed.quantity / parsed.windowSeconds > 1_000_000) context.addIssue('must be at most 1000000 per second')
    return parsed
  })

const cost = integer(0, 1_000_000)
const limitShape = {
  by: oneOrMore(limitKey).describe(
    'What has a bucket of its own: consumer, address (IPv6 by /64), route, header:NAME, or a list of them combined.',
  ),
  rate: rate.describe('Requests per s, m, h or d.'),
  burst: integer(1, MAX_QUANTITY)
    .optional()
    .describe(
      'Size of the bucket: from idle exactly that many pass at once. Default: what one whole unit of the rate allows.',
    ),
  cost: z
    .union([cost, z.record(method, cost)])
    .prefault(1)
    .describe(
      'What one request takes from the bucket: a number, or by method ({ GET: 1, POST: 5 }; methods not named cost 1).',
    ),
  mode: z.enum(['enforce', 'report']).default('enforce').describe('report: counts, marks the log line, and admits.'),
  onFull: z
    .enum(['allow', 'deny'])
    .default('allow')
    .describe('What happens to a new key when the table of buckets is full.'),
  headers: z.boolean().default(false).describe('RateLimit and RateLimit-Policy on admitted answers too.'),
}

export const limitSchema = z
  .strictObject(limitShape)
  .describe('One bucket per key, shared by all routes that name this limit.')
const inlineLimit = z.strictObject({
  ...limitShape,
  name: name.optional().describe('Keeps its buckets when the route is renamed or its limits reordered.'),
})

const HOST =
  /^(\*\.)?([\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?)(\.[\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?)*$|^\[[0-9A-Fa-f:.]+\]$/u
const host = z
  .string()
  .regex(HOST, 'is not a host; write a name without scheme, port or path, or *.suffix (leave host out for any)')

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
    file: z.string().min(1).optional().describe('Its body from a file, relative to this one; read at start.'),
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

/** Header fields of an answer that a fallback cannot set. */
const GATEWAYS_OWN = new Set([
  'connection',
  'content-length',
  'transfer-encoding',
  'date',
  'x-rid',
  'x-tidegate-fallback',
])

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
    auth: z
      .enum(['x-m', 'none'])
      .describe(
        'x-m: callers sign (allow says who). none: open to anyone. There is no default, so that no route is open by accident.',
      ),
    allow: listOf(name).optional().describe('Consumers let in. Absent: every consumer.'),
    limits: z
      .array(z.union([name, inlineLimit]))
      .max(15)
      .default([])
      .describe('Keys of limits, or limits written here. All must admit.'),
    signBody: z
      .boolean()
      .optional()
      .describe(
        'With x-m: the signature covers the body, which is then read whole before it is forwarded. false: bodies stream, the last signed line is "-". Default true.',
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

const address = z.string().refine((text) => ipaddr.isValidCIDR(text) || (ipaddr.isValid(text) && /[.:]/.test(text)), {
  error: 'is not an address or CIDR range',
})

export const configSchema = z
  .strictObject({
    consumers: named(consumerSchema).default({}).describe('Who may call, by name.'),
    services: named(serviceSchema).describe('What requests are forwarded to, by name.'),
    limits: named(limitSchema).default({}).describe('Rate limits that several routes share, by name.'),
    routes: z.array(routeSchema).min(1).describe('What goes where.'),
    trustedProxies: z
      .array(address)
      .default([])
      .describe(
        'Addresses and CIDR ranges of the proxies in front: their X-Forwarded-For is believed, and their PROXY header.',
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
