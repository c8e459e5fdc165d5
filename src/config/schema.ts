// The configuration file: every option with its type, default, unit, limit and meaning. The types, the JSON Schema that editors use
// (`tidegate schema`) and the documentation come from here. Environment settings are in settings.ts; what one entry says of another
// (a route of a service, say) is checked in references.ts.
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { CREDENTIAL_KINDS } from './credentials.js'
import { componentIdentifier, SIGNATURE_ALGORITHMS } from './http-signature.js'
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

const HOST =
  /^(\*\.)?([\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?)(\.[\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?)*$|^\[[0-9A-Fa-f:.]+\]$/u
const host = z
  .string()
  .regex(HOST, 'is not a host; write a name without scheme, port or path, or *.suffix (leave host out for any)')

const secret = z
  .string()
  .min(1)
  .describe('The secret itself, env:NAME for an environment variable, or file:PATH (relative to this file).')

/** No clear text: this file is read by many. */
const apiKey = z
  .string()
  .regex(
    /^(sha256:[0-9a-f]{64}|(env|file):.+)$/,
    'must be sha256:HEX, env:NAME or file:PATH; tidegate hash makes the first of a key',
  )
const password = z
  .string()
  .regex(
    /^(sha256:[0-9a-f]{64}|\$scrypt\$.+|(env|file):.+)$/,
    'must be $scrypt$…, sha256:HEX, env:NAME or file:PATH; tidegate hash makes the first of a password',
  )

const httpSignatureKeySchema = z
  .strictObject({
    algorithm: z.enum(SIGNATURE_ALGORITHMS).describe("The key's algorithm; a signature that names another is refused."),
    secret: secret.optional().describe('For hmac-sha256: the secret, env:NAME or file:PATH.'),
    encoding: z
      .enum(['utf8', 'base64'])
      .default('utf8')
      .describe('How the secret is written: base64 for one that is not text.'),
    publicKey: z
      .string()
      .min(1)
      .optional()
      .describe('For all others: a PEM public key or certificate; the text itself, env:NAME or file:PATH.'),
  })
  .superRefine(({ algorithm, secret, publicKey }, context) => {
    const wanted = algorithm === 'hmac-sha256' ? 'secret' : 'publicKey'
    const other = algorithm === 'hmac-sha256' ? 'publicKey' : 'secret'
    const given = { secret, publicKey }
    if (given[other] !== undefined) {
      context.addIssue({ code: 'custom', path: [other], message: `is not for ${algorithm}, which has a ${wanted}` })
    } else if (given[wanted] === undefined) context.addIssue(`needs a ${wanted} for ${algorithm}`)
  })
  .transform((key) => ({
    ...key,
    /** From secret or publicKey, in secrets.ts. */
    material: '',
  }))

const keyid = z.string().regex(/^[\u0020-\u007e]{1,256}$/, 'is not a keyid: printable ASCII, 256 in all')

const consumerSchema = z
  .strictObject({
    secret: oneOrMore(secret)
      .default([])
      .describe('For x-m: one secret, or several while one is being rotated out: each is accepted.'),
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
    apiKeys: oneOrMore(apiKey)
      .default([])
      .describe(
        'For api-key: the SHA-256 of each key that is accepted, as sha256:HEX. With env:NAME or file:PATH that, or a key, of which only the hash is kept.',
      ),
    password: password
      .optional()
      .describe(
        'For basic, where the user name is that of the consumer: $scrypt$…, or sha256:HEX of a long random one. With env:NAME or file:PATH either, or the password, of which only the hash is kept.',
      ),
    jwt: z
      .record(name, z.string().min(1))
      .default({})
      .describe('For jwt: by issuer, what its consumer claim says of this one, such as { acme: alice }.'),
    httpSignatureKeys: z
      .record(keyid, httpSignatureKeySchema)
      .default({})
      .describe('For http-signature: by keyid, the keys that it signs with. Several while one is being rotated out.'),
    groups: oneOrMore(name).default([]).describe('Groups it is in; a route lets one in by allow: [group:NAME].'),
    certificate: oneOrMore(z.string().min(1))
      .default([])
      .describe('For client-certificate: what its certificate calls it (tls.clientName); one name or several.'),
  })
  .describe('Someone who calls. The name is what x-source says.')

/** Fields that the gateway reads or writes for another reason. */
const TAKEN =
  /^(host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|via|forwarded|x-forwarded-.*|traceparent|tracestate|cookie|authorization|x-rid|x-source|x-time|x-m|x-consumer-username)$/

const apiKeysSchema = z
  .strictObject({
    header: headerName
      .refine((text) => !TAKEN.test(text), 'is a field with a meaning of its own')
      .default('x-api-key')
      .describe('Where a key is looked for.'),
    query: z
      .string()
      .regex(/^[A-Za-z0-9._~-]+$/, 'is not a parameter name; write letters, digits and . _ ~ -')
      .optional()
      .describe(
        'A parameter of the query where one is looked for as well, for callers that can send no header. It is hidden in the log, and stripped as the header is.',
      ),
  })
  .describe('Where requests carry API keys.')

const jwksSchema = z
  .strictObject({
    url: z
      .string()
      .refine((text) => URL.canParse(text) && /^https?:\/\//i.test(text), 'must be an http:// or https:// URL')
      .describe('Where the issuer publishes its keys. Over http whoever is between can put their own in place.'),
    maxAge: duration(1000, 24 * HOUR_MS)
      .prefault('10m')
      .describe(
        'Time after which the keys are asked for again. While the issuer does not answer, known ones are good for an hour more.',
      ),
    cooldown: duration(100, HOUR_MS)
      .prefault('30s')
      .describe('Least time between two requests for keys, also where a token names one that is not known.'),
  })
  .describe('Keys that the issuer publishes as a JWK set (RFC 7517).')

const ALGORITHMS = [
  ...(['HS256', 'HS384', 'HS512'] as const),
  ...(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const),
]
const PUBLIC_DEFAULT = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'] as const

const issuerSchema = z
  .strictObject({
    issuer: z.string().min(1).describe('The iss claim, to the letter.'),
    audience: oneOrMore(z.string().min(1)).describe(
      'The aud claim must hold one of these: what was issued for another service is no use here.',
    ),
    algorithms: listOf(z.enum(ALGORITHMS))
      .optional()
      .describe(
        'Those accepted, whatever a token says. Default: HS256 with secrets, else RS256, PS256, ES256, EdDSA and Ed25519.',
      ),
    secrets: oneOrMore(secret)
      .optional()
      .describe('For HS256, HS384 and HS512: what the issuer signs with. Each is accepted.'),
    publicKeys: oneOrMore(z.string().min(1))
      .optional()
      .describe(
        'For all others: PEM public keys or certificates, JWKs or JWK sets; the text itself, env:NAME or file:PATH.',
      ),
    jwks: jwksSchema.optional(),
    leeway: duration(0, 600_000).prefault('30s').describe('How far clocks may be apart, for exp and nbf.'),
    consumerClaim: z
      .string()
      .min(1)
      .default('sub')
      .describe(
        'The claim that says who calls; consumers name their value of it under jwt. Dots lead into nested ones.',
      ),
    groupsClaim: z
      .string()
      .min(1)
      .optional()
      .describe(
        'A claim that names groups of the caller, a list or one text with blanks between (as scope is). Dots lead into nested ones.',
      ),
    groups: oneOrMore(name).default([]).describe('Groups that all its callers are in.'),
    unlisted: z
      .enum(['refuse', 'admit'])
      .default('refuse')
      .describe('Callers that no consumer names. admit: they are consumers by the name ISSUER:CLAIM.'),
  })
  .superRefine(({ secrets, publicKeys, jwks, algorithms }, context) => {
    const given = Object.entries({ secrets, publicKeys, jwks }).filter(([, value]) => value !== undefined)
    if (given.length === 0) context.addIssue('needs secrets, publicKeys or jwks')
    if (given.length > 1) {
      context.addIssue({
        code: 'custom',
        path: [given[1]?.[0] as string],
        message: `cannot stand next to ${given[0]?.[0]}`,
      })
    }
    for (const [at, algorithm] of (algorithms ?? []).entries()) {
      if (algorithm.startsWith('HS') === (secrets !== undefined)) continue
      const fitting = secrets === undefined ? 'is made with secrets' : 'is made with key pairs, not with secrets'
      context.addIssue({ code: 'custom', path: ['algorithms', at], message: `${algorithm} ${fitting}` })
    }
  })
  .transform((issuer) => ({
    ...issuer,
    algorithms: issuer.algorithms ?? (issuer.secrets === undefined ? [...PUBLIC_DEFAULT] : ['HS256' as const]),
    /** From publicKeys, in load.ts. */
    keys: [] as Record<string, unknown>[],
  }))
  .describe('Someone whose tokens are believed.')

const httpSignatureSchema = z
  .strictObject({
    components: listOf(
      z.string().transform((text, context) => {
        const identifier = componentIdentifier(text)
        if (identifier === null) {
          context.addIssue('is not a component; write @method, a field in lower case, or @query-param;name="NAME"')
        }
        return identifier ?? ''
      }),
    )
      .optional()
      .describe(
        'What a signature must cover, in place of the default: @method, and @target-uri or else @authority with @request-target or @path and @query. With a body also content-digest, unless signBody: false.',
      ),
    maxAge: duration(1000, 24 * HOUR_MS)
      .optional()
      .describe('How old a signature may be, by created. Default 300s.'),
    leeway: duration(0, HOUR_MS).optional().describe('How far ahead of ours the clock of callers may be. Default 30s.'),
    label: z
      .string()
      .regex(/^[a-z*][a-z0-9_.*-]*$/, 'is not a label (RFC 9651, 3.1.2)')
      .optional()
      .describe('Only a signature with this label counts. Default: the first whose keyid is known.'),
    tag: z
      .string()
      .regex(/^[\u0020-\u007e]+$/, 'is not a tag: printable ASCII')
      .optional()
      .describe('Only a signature with this tag counts.'),
  })
  .describe('What RFC 9421 signatures must be like.')

const replaySchema = z.enum(['allow', 'once'])

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

const file = z.string().min(1)

const upstreamTlsSchema = z
  .strictObject({
    ca: file
      .optional()
      .describe('File of the authorities that may vouch for the service, PEM. Default: those that Node brings along.'),
    serverName: z
      .string()
      .regex(HOST, 'is not a host name')
      .optional()
      .describe("Name that is asked for (SNI) and that the certificate must have. Default: the endpoint's host."),
    cert: file.optional().describe('File of the certificate the gateway shows to the service, PEM, with its chain.'),
    key: file.optional().describe('File of its private key, PEM.'),
    passphrase: secret.optional().describe('Of an encrypted key: the text, env:NAME or file:PATH.'),
    verify: z
      .boolean()
      .default(true)
      .describe('false: any certificate will do, so whoever is in between can read and answer.'),
  })
  .describe('TLS towards https endpoints. File paths are relative to this file; read at start.')

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
    tls: upstreamTlsSchema.optional(),
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

/** Header fields of an answer that a fallback cannot set. */
const GATEWAYS_OWN = new Set([
  'connection',
  'content-length',
  'transfer-encoding',
  'date',
  'x-rid',
  'x-tidegate-fallback',
])

const address = z.string().refine((text) => ipaddr.isValidCIDR(text) || (ipaddr.isValid(text) && /[.:]/.test(text)), {
  error: 'is not an address or CIDR range',
})

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

const tlsSchema = z
  .strictObject({
    certificates: listOf(
      z.strictObject({
        cert: file.describe('File of the certificate, PEM: its own first, then the chain.'),
        key: file.describe('File of its private key, PEM: RSA, or ECDSA on P-256, P-384 or P-521.'),
        passphrase: secret.optional().describe('Of an encrypted key: the text, env:NAME or file:PATH.'),
        names: listOf(host)
          .optional()
          .describe('Names (SNI) it is for, exact or *.suffix. Default: the DNS names in the certificate.'),
      }),
    ).describe('The first is also for clients that ask for no name, or for one that none is for.'),
    minVersion: z
      .literal(['1.2', '1.3', 1.2, 1.3])
      .default('1.2')
      .transform(String)
      .describe('Oldest version of TLS that is spoken: 1.2 or 1.3.'),
    clientCa: file.optional().describe('File of the authorities that vouch for clients, PEM.'),
    clientAuth: z
      .enum(['none', 'request', 'require'])
      .default('none')
      .describe(
        'request: clients may show a certificate; one that clientCa did not issue ends the handshake. require: and who shows none is answered 403.',
      ),
    clientName: z
      .enum(['cn', 'dns', 'uri', 'email'])
      .default('cn')
      .describe(
        "What of a client's certificate says who it is: the common name, or the alternative names of one kind.",
      ),
  })
  .superRefine((tls, context) => {
    const issue = (key: string, message: string) => context.addIssue({ code: 'custom', path: [key], message })
    if (tls.clientAuth !== 'none' && tls.clientCa === undefined)
      issue('clientAuth', 'needs clientCa, to know whom to believe')
    if (tls.clientAuth === 'none' && tls.clientCa !== undefined)
      issue('clientCa', 'has no effect without clientAuth: request or require')
  })
  .describe(
    'The listener speaks TLS. File paths are relative to this file; the files are read again when they change. Without this key it speaks cleartext.',
  )

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
