// Which client speaks to an endpoint. All of them are undici Dispatchers, so that attempt.ts knows one interface.
import { isIP } from 'node:net'
import type { buildConnector, Dispatcher } from 'undici'
import type { Endpoint, Service } from '../config/compile.js'
import { LeanPool } from './http1/pool.js'
import { createConnector, createPool } from './undici.js'
import { retryWhileFull } from './unix-socket.js'

/** Of a response's head, as undici's default. */
const MAX_HEADER_BYTES = 16_384

/**
 * All that createClient makes a client from: where two keys are equal, one client serves both. The key has nothing else
 * of a service or an endpoint, whose change therefore keeps the connections.
 */
export function clientKey({ client, pipelining, connectTimeoutMs, tls }: Service, { origin }: Endpoint): string {
  return `${origin} ${JSON.stringify({ client, pipelining, connectTimeoutMs, tls })}`
}

/** `connections` is the most there are to the endpoint at once. */
export function createClient(service: Service, endpoint: Endpoint, connections: number): Dispatcher {
  const { pipelining, connectTimeoutMs } = service
  const { socketPath } = endpoint
  const origin = socketPath === null ? endpoint.origin : `http://${endpoint.authority}`
  if (service.client === 'lean' && origin.startsWith('http:')) {
    return new LeanPool(origin, {
      socketPath,
      connections,
      pipelining,
      connectTimeoutMs,
      maxHeaderBytes: MAX_HEADER_BYTES,
    })
  }
  return createPool(origin, {
    connections,
    pipelining,
    allowH2: false,
    maxHeaderSize: MAX_HEADER_BYTES,
    // Deadlines are ours (deadlines.ts): undici would arm a timer per request.
    headersTimeout: 0,
    bodyTimeout: 0,
    connect: connectorTo(service, endpoint),
  })
}

/**
 * undici takes the name to ask for, and to find in the certificate, from a request's Host before all else: the caller's
 * own where preserveHost is set. Here it is the endpoint's.
 */
function connectorTo(service: Service, { serverName, socketPath }: Endpoint): buildConnector.connector {
  const { tls, connectTimeoutMs } = service
  if (socketPath !== null)
    return retryWhileFull(createConnector({ timeout: connectTimeoutMs, socketPath }), connectTimeoutMs)
  const { ca, cert, key, verify } = tls
  const connect = createConnector({ timeout: connectTimeoutMs, ca, cert, key, rejectUnauthorized: verify })
  const host = serverName.replace(/^\[|\]$/g, '')
  // RFC 6066, 3: an address is no name to ask for. Node then compares the one it connects to.
  const servername = isIP(host) === 0 ? host : ''
  return (options, callback) => connect({ ...options, servername }, callback)
}
