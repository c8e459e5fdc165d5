// First step of a request's way: uWS's stack-allocated request → Exchange. With respond.ts and listen.ts the only users of uWS.
// Runs per request. Copies all it needs before it returns, and refuses what uWS let through though its framing is in doubt.
import type { HttpRequest, HttpResponse } from 'uWebSockets.js'
import { isIPv6 } from 'node:net'
import type { RouteTable } from '../config/compile.js'
import { canonicalPath } from '../config/patterns.js'
import { Rejection } from '../outcome.js'
import { hasToken } from '../proxy/headers.js'
import { Exchange } from './exchange.js'
import { expectBody, takeConnection } from './gate.js'

// All of these close the connection: where its next request begins cannot be trusted (RFC 9112, 6.3).
const badLength = new Rejection('bad_request', 'bad content-length', true)
const badCoding = new Rejection('bad_request', 'bad transfer-encoding', true)
const badHost = new Rejection('bad_request', 'bad host', true)
const otherHost = new Rejection('bad_request', 'target and host differ', true)
const badTarget = new Rejection('bad_request', 'bad request target', true)
const doubtfulPath = new Rejection('bad_request', 'ambiguous path', true)
const badHeader = new Rejection('bad_request', 'bad header', true)
const underscore = new Rejection('bad_request', 'underscore in a header name', true)
const badMethod = new Rejection('bad_request', 'bad method', true)
const noTunnels = new Rejection('bad_request', 'CONNECT is not served', true)

/** Filled by collect() during forEach, so that no closure is made per request. */
let collected: string[] = []
const collect = (name: string, value: string): void => {
  collected.push(name, value)
}

export function accept(res: HttpResponse, req: HttpRequest, nowUs: number): Exchange {
  collected = []
  req.forEach(collect)
  const exchange = new Exchange(res, nowUs, req.getCaseSensitiveMethod(), req.getUrl(), req.getQuery(), collected)
  exchange.gated = takeConnection()
  return exchange
}

/** DEL is the one control character that uWS lets through. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: what uWS lets through and is not plain ASCII
const NOT_PLAIN = /[^\x00-\x7e]/

/** RFC 3986, 2: a target is visible ASCII; a fragment never leaves the client. */
const NOT_IN_TARGET = /[^\x21-\x7e]|#/
/** Those, and what a path may have to be spelled anew for: the one look that most paths get. */
const UNUSUAL_PATH = /[^\x21-\x7e]|[#%\\]|\/[/.]/

/** RFC 9110, 5.6.2. */
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/

/** Begins the field in which the gate passes on the authority of a target. */
const DEL = 0x7f

type FramingRules = Pick<RouteTable, 'underscoresInHeaders' | 'paths'>

/** Framing, and what later phases read: the fields, and what the path means. Null when the request is well formed. */
export function checkFraming(exchange: Exchange, table: FramingRules): Rejection | null {
  const headers = exchange.headers
  let hosts = 0
  let hostField = ''
  let authority = ''
  let lengths = 0
  let codings = 0
  for (let i = 0; i < headers.length; i += 2) {
    const value = headers[i + 1] as string
    switch (headers[i]) {
      case 'host':
        hosts++
        hostField = value
        exchange.host = hostname(value)
        break
      case 'tidegate-target':
        // The gate's, of a target in absolute-form. Whoever sends one by himself can say no more with it.
        if (value.charCodeAt(0) !== DEL) return badHost
        authority = value.slice(1)
        headers.splice(i, 2)
        i -= 2
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
        if (table.underscoresInHeaders !== 'allow' && (headers[i] as string).includes('_')) {
          if (table.underscoresInHeaders === 'refuse') return underscore
          // Behind CGI `x_source` and `x-source` are one: whoever means one of them must not slip in the other.
          headers.splice(i, 2)
          i -= 2
          break
        }
        if (!NOT_PLAIN.test(value)) break
        // uWS decodes header values as UTF-8; what was not UTF-8 cannot be passed on as it came.
        if (value.includes('\ufffd') || value.includes('\x7f')) return badHeader
        exchange.isWide = true
    }
  }
  if (codings > 0) {
    if (lengths > 0) return badLength
    // RFC 9112, 6.1: HTTP/1.0 has none.
    if (exchange.isHttp10) return badCoding
    exchange.contentLength = -1
  }
  // HTTP/1.0 has no Host; the relay writes an empty one for uWS. The target may name it all the same (RFC 9112, 3.2.2).
  if (hosts === 1 && exchange.isHttp10 && hostField === '') {
    if (authority !== '' && !takeHostOf(exchange, authority)) return badHost
  } else {
    if (hosts !== 1 || exchange.host === '') return badHost
    // RFC 9112, 3.2.2: of the two the target's counts. Somebody else may go by the other.
    if (authority !== '' && authority.toLowerCase() !== hostField.toLowerCase()) return otherHost
  }
  const method = exchange.method
  if (method !== 'GET' && method !== 'POST') {
    if (method === 'CONNECT') return noTunnels
    if (!TOKEN.test(method)) return badMethod
  }
  if (NOT_IN_TARGET.test(exchange.query)) return badTarget
  if (UNUSUAL_PATH.test(exchange.path)) {
    if (NOT_IN_TARGET.test(exchange.path)) return badTarget
    const path = canonicalPath(exchange.path, table.paths)
    if (path === null) return doubtfulPath
    exchange.canonicalPath = path
  }
  if (exchange.contentLength !== 0) expectBody(exchange)
  return null
}

/** In the place of the empty Host that the relay has written. False: it is none. */
function takeHostOf(exchange: Exchange, authority: string): boolean {
  exchange.host = hostname(authority)
  exchange.headers[exchange.headers.indexOf('host') + 1] = authority
  return exchange.host !== ''
}

/** Host fields seen so far, for the few that most requests have. Capped: callers choose them. */
const hostnames = new Map<string, string>()
const MAX_HOSTNAMES = 1000

/**
 * host[:port] → lower-case host; '' for what is no host. Of RFC 3986, 3.2.2, without the escapes and the comma that no name has in DNS:
 * somebody else may take them for another host.
 */
function hostname(value: string): string {
  const known = hostnames.get(value)
  if (known !== undefined) return known
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|[\w.~!$&'()*+;=-]+)(?::([0-9]{0,5}))?$/.exec(value)
  const [, ipv6, port] = match ?? []
  const isHost = match !== null && (ipv6 === undefined || isIPv6(ipv6)) && !(Number(port) > 65_535)
  const host = isHost ? value.replace(/:[0-9]*$/, '').toLowerCase() : ''
  if (hostnames.size < MAX_HOSTNAMES) hostnames.set(value, host)
  return host
}
