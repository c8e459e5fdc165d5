// The lines of a response's head: the gateway's own, and those of an upstream that go on to the client. Runs per
// response; what many responses share is prepared once.
import type { IncomingHttpHeaders } from 'node:http'
import { connectionOptions, isHopByHop } from '../exchange/connection-options.js'
import type { Exchange } from '../exchange/exchange.js'
import { HeadLines } from '../exchange/response-head.js'
import { rateLimitHeader, rateLimitPolicyHeader } from './rate-limit-fields.js'

/** The gateway's own fields, each behind a CRLF. */
export function ownLines(exchange: Exchange): string {
  const { limit, fallback } = exchange
  let lines = `\r\nx-rid: ${exchange.rid}`
  if (fallback !== '') lines += `\r\nx-tidegate-fallback: ${fallback}`
  if (limit !== null && (limit.headers || exchange.code === 'rate_limited'))
    lines += `\r\nratelimit-policy: ${rateLimitPolicyHeader(limit)}\r\nratelimit: ${rateLimitHeader(exchange)}`
  return lines
}

/**
 * Where the lines of an upstream's head are kept: the lean client gives equal heads as one object
 * (upstream/http1/response-head.ts).
 */
const LINES = Symbol('lines')
type Headers = IncomingHttpHeaders & { [LINES]?: HeadLines }

/** Written by the downstream, or by the gateway. */
const rewritten = new Set(['content-length', 'date', 'x-rid', 'x-tidegate-fallback'])

/** The upstream's header fields without this hop's own. No value has a CR or LF: both clients refuse those. */
export function linesOf(headers: Headers): HeadLines {
  const known = headers[LINES]
  if (known !== undefined) return known
  let text = ''
  const options = connectionOptions(headers.connection)
  for (const name in headers) {
    if (rewritten.has(name) || isHopByHop(name, options)) continue
    const value = headers[name]
    if (typeof value === 'string') text += `\r\n${name}: ${value}`
    else if (value !== undefined) for (const one of value) text += `\r\n${name}: ${one}`
  }
  const lines = new HeadLines(text)
  headers[LINES] = lines
  return lines
}
