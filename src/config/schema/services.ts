// Options of services: endpoints, deadlines, TLS and the breaker.
import { z } from 'zod'
import { balanceKeys } from './balance.js'
import { concurrency, maxInFlight } from './bulkhead.js'
import { endpointSchema } from './endpoints.js'
import { healthSchema } from './health.js'
import { outliersSchema } from './outliers.js'
import { retriesSchema } from './retries.js'
import { duration, file, HOST, HOUR_MS, integer, ratio, secret } from './values.js'

const breakerSchema = z
  .strictObject(
    {
      window: duration(1000, HOUR_MS).prefault('10s').describe('Sliding window in which calls are counted.'),
      minRequests: integer(1, 1_000_000).default(20).describe('Fewest calls in the window for the breaker to open.'),
      failureRatio: ratio.default(0.5).describe('Share of failed calls at which the breaker opens.'),
      slowCall: duration(1, HOUR_MS, true)
        .prefault('none')
        .describe('A call that takes this long counts as slow. none: no call does.'),
      slowRatio: ratio.default(0.8).describe('Share of slow calls at which the breaker opens.'),
      openFor: duration(100, HOUR_MS)
        .prefault('5s')
        .describe('How long the open breaker refuses calls before the first probe. Doubles while probes fail.'),
      maxOpenFor: duration(100, HOUR_MS).prefault('60s').describe('Upper bound for the doubled openFor.'),
      probes: integer(1, 32)
        .default(3)
        .describe('Requests that test whether the service has recovered, over all workers.'),
      ramp: duration(0, HOUR_MS)
        .prefault('10s')
        .describe('Time in which traffic returns from 10 % to 100 % after successful probes. 0s: at once.'),
      failureStatuses: z
        .array(integer(400, 599))
        .default([502, 503, 504])
        .describe('Statuses that count as failures, besides refused and reset connections and timeouts.'),
    },
    'must be a map such as { openFor: 5s }, or {} for the defaults',
  )
  .refine((breaker) => breaker.maxOpenFor >= breaker.openFor, {
    path: ['maxOpenFor'],
    error: 'must be at least openFor',
  })
  .describe(
    'Circuit breaker: stops calling a failing service. Without this key the service has none; {} uses all defaults.',
  )

const timeoutsSchema = z
  .strictObject({
    connect: duration(1, HOUR_MS)
      .prefault('2s')
      .describe(
        'For the TCP and TLS handshake, or for room in the backlog of a Unix socket. A lost SYN is sent again after 1 s; the default leaves room for one.',
      ),
    firstByte: duration(1, HOUR_MS, true)
      .prefault('15s')
      .describe('From the end of the request to the head of the response.'),
    idle: duration(1, HOUR_MS, true)
      .prefault('60s')
      .describe(
        'Longest silence of the service within the response, or before it takes more of an upload. Use none for event streams without heartbeats.',
      ),
    total: duration(1, 24 * HOUR_MS, true)
      .prefault('none')
      .describe(
        "The service's own time until the last byte of the response; time spent waiting for the client does not count. Keep none for event streams and long polls.",
      ),
  })
  .describe(
    'Deadlines for the service. The first to pass ends the request with 504. They pause while the gateway waits for the client.',
  )

const upstreamTlsSchema = z
  .strictObject({
    ca: file.optional().describe("PEM file of the trusted certificate authorities. Default: Node's built-in list."),
    serverName: z
      .string()
      .regex(HOST, 'is not a host name')
      .optional()
      .describe("Server name for SNI, which the certificate must match. Default: the endpoint's host."),
    cert: file.optional().describe("PEM file of the gateway's client certificate, with its chain."),
    key: file.optional().describe('PEM file of the private key of cert.'),
    passphrase: secret.optional().describe('Passphrase of an encrypted key, as text, env:NAME or file:PATH.'),
    verify: z
      .boolean()
      .default(true)
      .describe('false disables certificate verification: anyone on the network path can read and answer requests.'),
  })
  .describe(
    'TLS settings for https endpoints. File paths are relative to this file; the files are read at start and with each reload.',
  )

export const serviceSchema = z
  .strictObject({
    endpoints: z
      .array(endpointSchema)
      .min(1)
      .describe('Where the service listens: scheme, host and port, or the path of a Unix socket.'),
    timeouts: timeoutsSchema.prefault({}),
    client: z
      .enum(['lean', 'undici'])
      .default('lean')
      .describe("HTTP client for http endpoints: lean (Tidegate's own) or undici. https endpoints always use undici."),
    pipelining: integer(1, 256)
      .default(1)
      .describe(
        'Most requests in flight on one connection. Above 1, idempotent requests without a body share connections (RFC 9110, 9.2.2). Useful for many small, fast responses of one kind.',
      ),
    tls: upstreamTlsSchema.optional(),
    ...balanceKeys,
    breaker: breakerSchema.optional(),
    retries: retriesSchema,
    health: healthSchema.optional(),
    outliers: outliersSchema,
    maxInFlight: maxInFlight.optional(),
    concurrency: concurrency.optional(),
  })
  .describe('A service: one or several endpoints that serve the same requests.')
