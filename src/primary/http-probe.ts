// A health check that asks over HTTP: is the status an expected one, and the text in the body? In the primary;
// health-checks.ts bounds its time and judges what it says.
//
// Each check has a connection of its own, so that accepting is checked too and a kept-alive connection that the
// endpoint closed meanwhile is no fault. A redirect is not followed: its target is not the endpoint.
import { type IncomingMessage, request as requestHttp } from 'node:http'
import { request as requestHttps } from 'node:https'
import type { Endpoint, UpstreamTls } from '../config/compile.js'
import type { HttpCheck } from '../config/health.js'
import { type Settle, settleError, tlsOptions } from './tcp-probe.js'

/** More of a response's body is not read. */
const MAX_BODY_BYTES = 65_536

/** @returns what ends it early */
export function probeHttp(endpoint: Endpoint, tls: UpstreamTls, check: HttpCheck, settle: Settle): () => void {
  const { origin, authority, socketPath } = endpoint
  const { method, path, host } = check
  const headers = { 'user-agent': 'tidegate-health', accept: '*/*', ...(host !== null && { host }) }
  const options = { agent: false as const, method, headers }
  const take = (response: IncomingMessage): void => judge(check, response, settle)
  const request =
    socketPath !== null
      ? requestHttp(`http://${authority}${path}`, { ...options, socketPath }, take)
      : origin.startsWith('https:')
        ? requestHttps(origin + path, { ...options, ...tlsOptions(endpoint, tls) }, take)
        : requestHttp(origin + path, options, take)
  request.on('error', (error) => settleError(error, settle))
  request.end()
  return () => request.destroy()
}

function judge({ statuses, text }: HttpCheck, response: IncomingMessage, settle: Settle): void {
  const { statusCode = 0 } = response
  if (!statuses.some(([from, to]) => statusCode >= from && statusCode <= to)) return settle(`status ${statusCode}`)
  const wanted = Buffer.from(text)
  const start = Buffer.allocUnsafe(wanted.length === 0 ? 0 : MAX_BODY_BYTES)
  let bytes = 0
  response.on('data', (chunk: Buffer) => {
    const before = bytes
    bytes += chunk.length
    if (wanted.length > 0) {
      chunk.copy(start, before)
      // The text may have begun in an earlier chunk.
      if (start.subarray(0, bytes).includes(wanted, Math.max(0, before - wanted.length + 1))) return settle('')
    }
    if (bytes >= MAX_BODY_BYTES)
      settle(text === '' ? '' : `${JSON.stringify(text)} is not in the first 64 KiB of the body`)
  })
  response.on('end', () => settle(text === '' ? '' : `${JSON.stringify(text)} is not in the body`))
  response.on('error', (error) => settleError(error, settle))
}
