// The first step of a request's way: makes an Exchange of uWS's request, which lives on the stack, so all that is
// needed of it is copied. Refuses requests that uWS let through although their framing is in doubt. Runs per request.
import type { HttpRequest, HttpResponse } from 'uWebSockets.js'
import { isIPv6 } from 'node:net'
import type { RouteTable } from '../../config/compile.js'
import { bytesOf, canonicalPath, TOKEN } from '../../config/patterns.js'
import { ClientDeadline, grpcTimeoutField, timeoutMsField } from '../../exchange/client-deadline.js'
import { connectionOptions } from '../../exchange/connection-options.js'
import { Exchange } from '../../exchange/exchange.js'
import { Fields, HEAD, inOnePiece, LOOKS, listed, MARKS, numberOf } from '../../exchange/fields.js'
import { Rejection } from '../../exchange/outcome.js'
import { UwsDownstream } from './downstream.js'
import { headMarks, isGated, readHead } from './gate.js'

const HOST = numberOf('host')
const CONTENT_LENGTH = numberOf('content-length')
const TRANSFER_ENCODING = numberOf('transfer-encoding')
const CONNECTION = numberOf('connection')
const EXPECT = numberOf('expect')
const TIMEOUT_MS = numberOf('x-timeout-ms')
const GRPC_TIMEOUT = numberOf('grpc-timeout')
const UPGRADE = numberOf('upgrade')

// All of these close the connection: it is uncertain where the next request begins (RFC 9112, 6.3).
const badLength = new Rejection('bad_request', 'bad content-length', true)
const badCoding = new Rejection('bad_request', 'bad transfer-encoding', true)
const ungatedChunks = new Rejection('bad_request', 'chunked body, and no gate to read it', true)
const badHost = new Rejection('bad_request', 'bad host', true)
const otherHost = new Rejection('bad_request', 'target and host differ', true)
const badTarget = new Rejection('bad_request', 'bad request target', true)
const doubtfulPath = new Rejection('bad_request', 'ambiguous path', true)
const badHeader = new Rejection('bad_request', 'bad header', true)
const underscore = new Rejection('bad_request', 'underscore in a header name', true)
const badMethod = new Rejection('bad_request', 'bad method', true)
const unknownExpectation = new Rejection('expectation_failed', 'unknown expectation', true)
const noTunnels = new Rejection('bad_request', 'CONNECT is not served', true)
// WebSocket frames may follow, which are no request.
const noWebSockets = new Rejection('bad_request', 'WebSocket is not served', true)

/** From within the request's handler. */
export function accept(res: HttpResponse, req: HttpRequest, nowUs: number): Exchange {
  const head = readHead()
  if (head === null) return acceptFromParser(res, req, nowUs)
  const marks = headMarks()
  const methodEnd = marks[HEAD.methodEnd]!
  const pathEnd = marks[HEAD.pathEnd]!
  const targetEnd = marks[HEAD.targetEnd]!
  const method = head.startsWith('GET ') ? 'GET' : head.substring(0, methodEnd)
  const query = pathEnd === targetEnd ? undefined : head.substring(pathEnd + 1, targetEnd)
  const fields = Fields.ofHead(head, marks)
  const exchange = make(res, nowUs, method, head.substring(methodEnd + 1, pathEnd), query, fields)
  if (marks[HEAD.authority] !== 0) exchange.authority = head.substring(marks[HEAD.authority]!)
  return exchange
}

/** Without a gate. uWS decodes heads from UTF-8; bytes that are none are U+FFFD then, and checkUnusual refuses them. */
function acceptFromParser(res: HttpResponse, req: HttpRequest, nowUs: number): Exchange {
  const pairs: string[] = []
  req.forEach((name, value) => pairs.push(name, bytesOf(value)))
  return make(res, nowUs, req.getCaseSensitiveMethod(), req.getUrl(), req.getQuery(), Fields.of(pairs))
}

function make(
  res: HttpResponse,
  nowUs: number,
  method: string,
  path: string,
  query: string | undefined,
  fields: Fields,
): Exchange {
  const downstream = new UwsDownstream(res, method, fields)
  const exchange = new Exchange(downstream, nowUs, method, path, query, fields)
  downstream.owner = exchange
  return exchange
}

/** RFC 3986, 2: a target is visible ASCII; a fragment never leaves the client. */
const NOT_IN_TARGET = /[^\x21-\x7e]|#/
/** Those, and whatever a path may need canonicalPath for: most paths get only this one look. */
const UNUSUAL_PATH = /[^\x21-\x7e]|[#%\\]|\/[/.]/

/** A protocol's name, with or without a version (RFC 9110, 7.8). */
const WEBSOCKET = /(?:^|[, \t])websocket(?:[/, \t]|$)/i

/** U+FFFD in UTF-8. */
const REPLACED = '\xef\xbf\xbd'

type FramingRules = Pick<RouteTable, 'underscoresInHeaders' | 'paths'>

/** Checks the framing, and sets what later phases read of the head. Null where the request is well formed. */
export function checkFraming(exchange: Exchange, table: FramingRules): Rejection | null {
  const { authority, fields } = exchange
  // accept() has made it.
  const downstream = exchange.downstream as UwsDownstream
  const { marks, looks } = fields
  if (looks !== 0) {
    const refused = checkUnusual(fields, table)
    if (refused !== null) return refused
  }
  let hosts = 0
  let hostAt = -1
  let hostField = ''
  let upgrade = ''
  let lengths = 0
  let codings = 0
  let expectation = ''
  let connection = ''
  let deadline: ClientDeadline | null = null
  for (let i = 0; i < marks.length; i += MARKS) {
    const number = marks[i] as number
    // Any other field: UPGRADE has the last number of those that are read here.
    if (number === 0 || number > UPGRADE) continue
    switch (number) {
      case HOST:
        hosts++
        hostAt = i
        hostField = fields.valueAt(i)
        exchange.host = hostname(hostField)
        break
      case CONTENT_LENGTH: {
        // RFC 9110, 8.6: digits, once. uWS accepts a second one that differs.
        const value = fields.valueAt(i)
        if (lengths++ > 0 || !/^[0-9]{1,15}$/.test(value)) return badLength
        exchange.contentLength = Number(value)
        exchange.declaresLength = true
        break
      }
      case TRANSFER_ENCODING:
        // RFC 9112, 6.1: what is not exactly one `chunked` is smuggling or a mistake. uWS accepts `identity`.
        if (codings++ > 0 || fields.valueAt(i).toLowerCase() !== 'chunked') return badCoding
        break
      case CONNECTION: {
        const value = fields.valueAt(i)
        // uWS takes a first field of that length for `close`, and ends the connection. So the response says so.
        if (connection === '' && value.length === 5) downstream.closes = true
        connection = listed(connection, value)
        break
      }
      case EXPECT:
        expectation = listed(expectation, fields.valueAt(i))
        break
      // One that is malformed says nothing, and goes on as it is: its name may mean something else to the service.
      case TIMEOUT_MS:
        deadline = ClientDeadline.earlier(deadline, exchange.startUs, timeoutMsField(fields.valueAt(i)))
        break
      case GRPC_TIMEOUT:
        deadline = ClientDeadline.earlier(deadline, exchange.startUs, grpcTimeoutField(fields.valueAt(i)))
        break
      case UPGRADE:
        upgrade = listed(upgrade, fields.valueAt(i))
        break
    }
  }
  if (deadline !== null) exchange.deadline = deadline
  if (connection !== '') {
    exchange.connection = connectionOptions(connection)
    if (exchange.connection.has('close')) downstream.closes = true
  }
  if (codings > 0) {
    if (lengths > 0) return badLength
    // RFC 9112, 6.1: HTTP/1.0 has none.
    if (exchange.isHttp10) return badCoding
    exchange.contentLength = -1
  }
  // HTTP/1.0 has no Host; the relay writes an empty one for uWS. The target may still name a host (RFC 9112, 3.2.2).
  if (hosts === 1 && exchange.isHttp10 && hostField === '') {
    if (authority !== '') {
      exchange.host = hostname(authority)
      if (exchange.host === '') return badHost
      fields.replace(hostAt, authority)
    }
  } else {
    if (hosts !== 1 || exchange.host === '') return badHost
    // RFC 9112, 3.2.2: the target's host counts, but another server on the way may go by Host.
    if (authority !== '' && authority.toLowerCase() !== hostField.toLowerCase()) return otherHost
  }
  // RFC 9110, 7.8: other offers (h2c, say) are ignored, and all in HTTP/1.0. A client that asks for WebSocket has no
  // use for another response.
  if (upgrade !== '' && WEBSOCKET.test(upgrade) && !exchange.isHttp10 && exchange.connection?.has('upgrade') === true)
    return noWebSockets
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
  // uWS reads chunks too leniently for a wall (native/src/uws/gate.cc), and cannot be told to end the connection behind
  // every kind of response.
  if (exchange.contentLength !== 0 && !downstream.expectBody(exchange.contentLength) && codings > 0)
    return ungatedChunks
  return expectation === '' ? null : checkExpectation(exchange, downstream, expectation)
}

/** RFC 9110, 10.1.1: a list, case-insensitive, of which only one member has a meaning. */
function checkExpectation(exchange: Exchange, downstream: UwsDownstream, expectation: string): Rejection | null {
  let waits = false
  for (const one of expectation.toLowerCase().split(',')) {
    const member = withoutBlanks(one)
    if (member === '') continue
    if (member !== '100-continue') return unknownExpectation
    waits = true
  }
  // The gate hides the field from uWS (head_marks.h). Without a gate uWS has sent 100 Continue already.
  downstream.awaitsContinue = waits && exchange.contentLength !== 0 && !exchange.isHttp10 && downstream.connection > 0
  return null
}

/** trim() removes more than the blanks of RFC 9110, 5.6.3: a byte A0, say. */
function withoutBlanks(text: string): string {
  let from = 0
  let end = text.length
  while (from < end && isBlank(text.charCodeAt(from))) from++
  while (end > from && isBlank(text.charCodeAt(end - 1))) end--
  return text.substring(from, end)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}

function checkUnusual(fields: Fields, table: FramingRules): Rejection | null {
  const { looks, marks } = fields
  if ((looks & LOOKS.del) !== 0) return badHeader
  if ((looks & LOOKS.wide) !== 0 && !isGated()) {
    for (let i = 0; i < marks.length; i += MARKS) if (fields.valueAt(i).includes(REPLACED)) return badHeader
  }
  if ((looks & LOOKS.oddName) === 0 || table.underscoresInHeaders === 'allow') return null
  for (let i = marks.length - MARKS; i >= 0; i -= MARKS) {
    if (!fields.nameAt(i).includes('_')) continue
    if (table.underscoresInHeaders === 'refuse') return underscore
    // CGI takes `x_source` and `x-source` for one name: a client must not pass the one off as the other.
    fields.drop(i)
  }
  return null
}

/** Host fields seen so far: most requests share a few. Bounded, because clients choose them. */
const hostnames = new Map<string, string>()
const MAX_HOSTNAMES = 1000

/**
 * The longest name with what may stand around it. The gate has the same bound for a target in absolute-form
 * (native/src/uws/request_line.h).
 */
const MAX_HOST = 262

/**
 * host[:port] → lower-case host; '' where it is no host. RFC 3986, 3.2.2, without the escapes and the comma that no
 * name in DNS has: another server may read another host from them.
 */
function hostname(value: string): string {
  const known = hostnames.get(value)
  if (known !== undefined) return known
  // RFC 3986, 3.2.2: no name in DNS is longer than 255, and match.ts looks up the end of a name label by label.
  if (value.length > MAX_HOST) return ''
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|[\w.~!$&'()*+;=-]+)(?::([0-9]{0,5}))?$/.exec(value)
  const [, ipv6, port] = match ?? []
  const isHost = match !== null && (ipv6 === undefined || isIPv6(ipv6)) && !(Number(port) > 65_535)
  const host = isHost ? value.replace(/:[0-9]*$/, '').toLowerCase() : ''
  if (hostnames.size < MAX_HOSTNAMES) hostnames.set(inOnePiece(value), inOnePiece(host))
  return host
}
