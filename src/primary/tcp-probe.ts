// A health check that connects, and completes the TLS handshake of an https endpoint: nothing is sent or read beyond
// that. In the primary; health-checks.ts bounds its time and judges what it says.
import { connect as connectTcp, isIP, type Socket } from 'node:net'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'
import type { Endpoint, UpstreamTls } from '../config/compile.js'

/** Told once what is wrong with the endpoint, '' if nothing. `code`: of the system's error, if that is the reason. */
export type Settle = (fault: string, code?: string) => void

/** @returns what ends it early */
export function probeTcp(endpoint: Endpoint, tls: UpstreamTls, settle: Settle): () => void {
  const socket = connect(endpoint, tls, () => settle(''))
  socket.on('error', (error) => settleError(error, settle))
  return () => socket.destroy()
}

function connect(endpoint: Endpoint, tls: UpstreamTls, onReady: () => void): Socket {
  const { socketPath, origin } = endpoint
  if (socketPath !== null) return connectTcp(socketPath, onReady)
  const { protocol, hostname, port } = new URL(origin)
  const host = hostname.replace(/^\[|\]$/g, '')
  if (protocol === 'http:') return connectTcp(Number(port || 80), host, onReady)
  return connectTls({ host, port: Number(port || 443), ...tlsOptions(endpoint, tls) }, onReady)
}

export function tlsOptions({ serverName }: Endpoint, { ca, cert, key, verify }: UpstreamTls): ConnectionOptions {
  const host = serverName.replace(/^\[|\]$/g, '')
  // RFC 6066, 3: an address is no name to ask for. Node then compares the one that it connects to.
  return { ca, cert, key, rejectUnauthorized: verify, servername: isIP(host) === 0 ? host : '' }
}

export function settleError(error: NodeJS.ErrnoException, settle: Settle): void {
  settle(error.message || (error.code ?? error.name), error.code)
}
