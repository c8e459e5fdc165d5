// Options of services: endpoints, deadlines, TLS, the breaker and health checks.
import { z } from 'zod'
import { duration, file, HOST, HOUR_MS, integer, ratio, secret } from './values.js'

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
      .describe('From the whole request sent to the head of the answer. 15 s is what Envoy allows a whole exchange.'),
    idle: duration(1, HOUR_MS, true)
      .prefault('60s')
      .describe(
        'Longest silence within the answer, or before more of an upload is taken, as proxy_read_timeout of nginx. Event streams without heartbeats want none.',
      ),
    total: duration(1, 24 * HOUR_MS, true)
      .prefault('none')
      .describe(
        "All of the service's own time until the last byte of the answer: what is waited for the client does not count. Leave at none for event streams and long polls.",
      ),
  })
  .describe(
    'Deadlines towards the service. The one that passes first ends the exchange with 504. They stand while the client is waited for.',
  )

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
