// First step of a request's way: uWS's stack-allocated request → Exchange. With respond.ts and listen.ts the only users of uWS.
// Runs per request. Copies all it needs before it returns, and refuses what uWS let through though its framing is in doubt.
import type { HttpRequest, HttpResponse } from 'uWebSockets.js'
import { Rejection } from '../outcome.js'
import { hasToken } from '../proxy/headers.js'
import { Exchange } from './exchange.js'

// All of these close the connection: where its next request begins cannot be trusted (RFC 9112, 6.3).
const badLength = new Rejection('bad_request', 'bad content-length', true)
const badCoding = new Rejection('bad_request', 'bad transfer-encoding', true)
const badHost = new Rejection('bad_request', 'bad host', true)
const badTarget = new Rejection('bad_request', 'bad request target', true)
const badHeader = new Rejection('bad_request', 'bad header', true)
const noTunnels = new Rejection('bad_request', 'CONNECT is not served', true)

/** Filled by collect() during forEach, so that no closure is made per request. */
let collected: string[] = []
const collect = (name: string, value: string): void => {
  collected.push(name, value)
}

export function accept(res: HttpResponse, req: HttpRequest, nowUs: number): Exchange {
  collected = []
  req.forEach(collect)
  return new Exchange(res, nowUs, req.getCaseSensitiveMethod(), req.getUrl(), req.getQuery(), collected)
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: the whole of ASCII is meant
const NOT_ASCII = /[^\x00-\x7f]/

/** Framing and the fields that later phases read. Null when the request is well formed. */
export function checkFraming(exchange: Exchange): Rejection | null {
  const headers = exchange.headers
  let hosts = 0
  let lengths = 0
  let codings = 0
  for (let i = 0; i < headers.length; i += 2) {
    const value = headers[i + 1] as string
    switch (headers[i]) {
      case 'host':
        hosts++
        exchange.host = hostname(value)
        break
      case 'content-length':
        // RFC 9110, 8.6: digits, once. uWS accepts a second one that differs.
        if (lengths++ > 0 || !/^[0-9]{1,15}$/.test(value)) return badLength
        exchange.contentLength = Number(value)
        exchange.declaresLength = true
        break
      case 'transfer-encoding':
        // RFC 9112, 6.1: what is not exactly one `chunked` is smuggling or a mistake. uWS accepts `identity`.
        if (codings++ > 0 || value.toLowerCase() !== 'chunked') return badCoding
        break
      case 'connection':
        exchange.connection = exchange.connection === '' ? value : `${exchange.connection},${value}`
        if (hasToken(value, 'close')) exchange.closeRequested = true
        break
      default:
        if (!NOT_ASCII.test(value)) break
        // uWS decodes header values as UTF-8; what was not UTF-8 cannot be passed on as it came.
        if (value.includes('\ufffd')) return badHeader
        exchange.isWide = true
    }
  }
  if (codings > 0) {
    if (lengths > 0) return badLength
    // RFC 9112, 6.1: HTTP/1.0 has none.
    if (exchange.isHttp10) return badCoding
    exchange.contentLength = -1
  }
  // HTTP/1.0 has no Host; the relay writes an empty one for uWS.
  if (hosts !== 1 || (exchange.host === '' && (!exchange.isHttp10 || exchange.header('host') !== ''))) return badHost
  if (exchange.method === 'CONNECT') return noTunnels
  // RFC 3986, 2: a target is visible ASCII; a fragment never leaves the client.
  if (/[^\x21-\x7e]|#/.test(exchange.path) || /[^\x21-\x7e]|#/.test(exchange.query)) return badTarget
  return null
}

/** Host fields seen so far, for the few that most requests have. Capped: callers choose them. */
const hostnames = new Map<string, string>()
const MAX_HOSTNAMES = 1000

/** host[:port] → lower-case host; '' for what is no host (userinfo, spaces, a bad port). */
function hostname(value: string): string {
  const known = hostnames.get(value)
  if (known !== undefined) return known
  const match = /^(\[[0-9a-fA-F:.]+\]|[^\s:/?#@[\]\\]+)(?::[0-9]{0,5})?$/.exec(value)
  const host = match === null ? '' : (match[1] as string).toLowerCase()
  if (hostnames.size < MAX_HOSTNAMES) hostnames.set(value, host)
  return host
}
