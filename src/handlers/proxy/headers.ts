// Which header fields cross the gateway, and the ones it writes itself. Pure; runs per request.
import type { Route } from '../../config/compile.js'
import { CREDENTIALS } from '../../config/credentials.js'
import { grpcTimeout } from '../../exchange/client-deadline.js'
import { type ConnectionOptions, HOP_BY_HOP } from '../../exchange/connection-options.js'
import type { Exchange } from '../../exchange/exchange.js'
import {
  END,
  inOnePiece,
  LINE,
  LOOKS,
  listed,
  MARKS,
  NUMBERED,
  type NumberedName,
  numberOf,
} from '../../exchange/fields.js'
import { traceparent, validTraceparent } from '../../telemetry/trace.js'
import { FieldLines } from '../../upstream/field-lines.js'

const PASSED = 0
const HOST = 1
const VIA = 2
const TRACE_PARENT = 3
const TRACE_STATE = 4
const FORWARDED = 5
const FORWARDED_FOR = 6
const FORWARDED_PROTO = 7
const FORWARDED_HOST = 8
/** Stays on this hop, is written anew, or has been answered (Expect: the client is told to continue here). */
const DROPPED = 9
const TIMEOUT_MS = 10
const GRPC_TIMEOUT = 11

/** Says who is calling (Kong's name for it). A caller's own never crosses, whatever the route. */
const CONSUMER_FIELD = 'x-consumer-username'

/**
 * What CGI and its heirs make of a name, lighttpd and PHP among them (RFC 3875, 4.1.18): `X.Consumer!Username` is
 * `X-Consumer-Username` to them. Of a name in lower case.
 */
function cgiName(name: string): string {
  return name.replace(/[^a-z0-9]/g, '_')
}

/** What becomes of a field of each numbered name; PASSED on as it is unless somebody says otherwise. */
const fates = new Uint8Array(NUMBERED.length + 1)
const others: readonly (readonly [NumberedName, number])[] = [
  ['host', HOST],
  ['via', VIA],
  ['traceparent', TRACE_PARENT],
  ['tracestate', TRACE_STATE],
  ['forwarded', FORWARDED],
  ['x-forwarded-for', FORWARDED_FOR],
  ['x-forwarded-proto', FORWARDED_PROTO],
  ['x-forwarded-host', FORWARDED_HOST],
  ['x-timeout-ms', TIMEOUT_MS],
  ['grpc-timeout', GRPC_TIMEOUT],
]
for (const name of [...HOP_BY_HOP, 'content-length', 'expect', 'x-rid', CONSUMER_FIELD] as const) {
  fates[numberOf(name)] = DROPPED
}
for (const [name, fate] of others) fates[numberOf(name)] = fate

interface Fates {
  readonly numbered: Uint8Array
  /** Names without a number that go no further. */
  readonly dropped: ReadonlySet<string>
  /**
   * As CGI has them: the fields that the gateway writes, has checked or takes off. Of these only what is numbered or
   * dropped is spelt right.
   */
  readonly vouchedFor: ReadonlySet<string>
}

const fatesByRoute = new WeakMap<Route, Fates>()

/** What belongs to this hop, and the credentials that end here. */
function fatesFor(route: Route): Fates {
  let found = fatesByRoute.get(route)
  if (found === undefined) {
    const { auth, strippedFields } = route
    const numbered = fates.slice()
    const known: readonly string[] = NUMBERED
    for (const name of strippedFields) if (known.includes(name)) numbered[numberOf(name as NumberedName)] = DROPPED
    const checked = auth.flatMap((kind) => CREDENTIALS[kind].vouches as readonly string[])
    const vouchedFor = [...known.filter((_, i) => numbered[i + 1] !== PASSED), ...strippedFields, ...checked]
    found = {
      numbered,
      dropped: new Set(strippedFields.filter((name) => !known.includes(name))),
      vouchedFor: new Set(vouchedFor.map(cgiName)),
    }
    fatesByRoute.set(route, found)
  }
  return found
}

/** Most lists are `keep-alive` or `close`, and name no field. */
function namesFields(options: ConnectionOptions): boolean {
  return options.size > Number(options.has('keep-alive')) + Number(options.has('close'))
}

/** RFC 7239, 6: an IPv6 address is quoted and bracketed. */
function forwardedNode(address: string): string {
  return address.includes(':') ? `"[${address}]"` : address
}

/** What a peer's requests for one host all say of it: made once, and kept while it asks for the same. */
interface Provenance {
  readonly host: string
  readonly authority: string
  readonly secure: boolean
  readonly isHttp10: boolean
  readonly lines: string
}

const provenances = new Map<string, Provenance>()
const MAX_PROVENANCES = 1000

/**
 * Of an untrusted peer: what it says about forwarding itself is dropped (as Envoy and Traefik do). `authority` is what
 * Host will say.
 */
function provenanceOf(peer: string, host: string, authority: string, secure: boolean, isHttp10: boolean): string {
  const last = provenances.get(peer)
  if (
    last !== undefined &&
    last.host === host &&
    last.authority === authority &&
    last.secure === secure &&
    last.isHttp10 === isHttp10
  ) {
    return last.lines
  }
  const lines = inOnePiece(forwardingLines(peer, host, authority, schemeOf(secure), hopOf(isHttp10), '', '', '', ''))
  if (provenances.size >= MAX_PROVENANCES) provenances.clear()
  provenances.set(peer, { host: inOnePiece(host), authority: inOnePiece(authority), secure, isHttp10, lines })
  return lines
}

function schemeOf(secure: boolean): string {
  return secure ? 'https' : 'http'
}

/** RFC 9110, 7.6.3: the version that the request came in. */
function hopOf(isHttp10: boolean): string {
  return isHttp10 ? '1.0 tidegate' : '1.1 tidegate'
}

function forwardingLines(
  peer: string,
  host: string,
  authority: string,
  scheme: string,
  hop: string,
  forwarded: string,
  forwardedFor: string,
  forwardedProto: string,
  forwardedHost: string,
): string {
  // Without a Host there is none to tell of: HTTP/1.0 need not have one.
  const element = `for=${forwardedNode(peer)}${host === '' ? '' : `;host="${host}"`};proto=${scheme}`
  const hostToTell = forwardedHost === '' ? host : forwardedHost
  return (
    `host: ${authority}\r\n` +
    `x-forwarded-for: ${forwardedFor === '' ? peer : `${forwardedFor}, ${peer}`}\r\n` +
    `x-forwarded-proto: ${forwardedProto === '' ? scheme : forwardedProto}\r\n` +
    `forwarded: ${forwarded === '' ? element : `${forwarded}, ${element}`}\r\n` +
    `via: ${hop}\r\n` +
    (hostToTell === '' ? '' : `x-forwarded-host: ${hostToTell}\r\n`)
  )
}

/**
 * The upstream request's fields: the caller's own as they came, all that follow one another in one piece, and behind
 * them those that are the gateway's. What a trusted proxy says about forwarding is continued.
 */
export function upstreamFields(exchange: Exchange, authority: string): FieldLines {
  const { fields, connection, consumer, peerAddress, secure, isHttp10 } = exchange
  const { text, marks, looks } = fields
  const { numbered, dropped, vouchedFor } = fatesFor(exchange.route as Route)
  const hasOddNames = (looks & LOOKS.oddName) !== 0
  const named = connection !== null && namesFields(connection) ? connection : null
  let lines = ''
  let from = 0
  let to = 0
  let host = ''
  let via = ''
  let trace = ''
  let traceState = ''
  let forwarded = ''
  let forwardedFor = ''
  let forwardedProto = ''
  let forwardedHost = ''
  let timeoutAt = -1
  let grpcTimeoutAt = -1
  for (let i = 0; i < marks.length; i += MARKS) {
    const number = marks[i] as number
    switch (numbered[number]) {
      case PASSED: {
        if (number === 0) {
          if (dropped.size > 0 && dropped.has(fields.nameAt(i))) break
          if (hasOddNames && vouchedFor.has(cgiName(fields.nameAt(i)))) break
        }
        if (named?.has(fields.nameAt(i))) break
        const line = marks[i + LINE] as number
        if (line !== to) {
          lines += text.substring(from, to)
          from = line
        }
        to = (marks[i + END] as number) + 2
        break
      }
      case HOST:
        host = fields.valueAt(i)
        break
      case VIA:
        via = listed(via, fields.valueAt(i))
        break
      case TRACE_PARENT:
        trace = fields.valueAt(i)
        break
      case TRACE_STATE:
        traceState = traceState === '' ? fields.valueAt(i) : `${traceState},${fields.valueAt(i)}`
        break
      case FORWARDED:
        forwarded = listed(forwarded, fields.valueAt(i))
        break
      case FORWARDED_FOR:
        forwardedFor = listed(forwardedFor, fields.valueAt(i))
        break
      case FORWARDED_PROTO:
        forwardedProto = listed(forwardedProto, fields.valueAt(i))
        break
      case FORWARDED_HOST:
        forwardedHost = listed(forwardedHost, fields.valueAt(i))
        break
      case TIMEOUT_MS:
        timeoutAt = i
        break
      case GRPC_TIMEOUT:
        grpcTimeoutAt = i
        break
    }
  }
  if (to > from) lines += text.substring(from, to)
  if (timeoutAt >= 0) lines += timeoutLine(exchange, timeoutAt, String)
  if (grpcTimeoutAt >= 0) lines += timeoutLine(exchange, grpcTimeoutAt, grpcTimeout)
  const hostField = exchange.route?.preserveHost && host !== '' ? host : authority
  if (exchange.peerTrusted || via !== '') {
    const trusted = exchange.peerTrusted
    const hop = via === '' ? hopOf(isHttp10) : `${via}, ${hopOf(isHttp10)}`
    lines += forwardingLines(
      peerAddress,
      host,
      hostField,
      schemeOf(secure),
      hop,
      trusted ? forwarded : '',
      trusted ? forwardedFor : '',
      trusted ? forwardedProto : '',
      trusted ? forwardedHost : '',
    )
  } else lines += provenanceOf(peerAddress, host, hostField, secure, isHttp10)
  lines += `x-rid: ${exchange.rid}\r\ntraceparent: ${traceparent(trace, exchange.rid)}\r\n`
  if (consumer !== null) lines += `${CONSUMER_FIELD}: ${consumer.name}\r\n`
  // Trace context, 3.3: the state of a trace that is not continued goes nowhere.
  if (traceState !== '' && validTraceparent(trace)) lines += `tracestate: ${traceState}\r\n`
  return new FieldLines(lines, contentLengthOf(exchange))
}

/** The field that begins there, with what is left for the service. As it came where the gateway could not read it. */
function timeoutLine({ fields, deadline }: Exchange, at: number, written: (ms: number) => string): string {
  const value = deadline === null ? fields.valueAt(at) : written(deadline.leftMs)
  return `${fields.nameAt(at)}: ${value}\r\n`
}

/**
 * A body that was read whole has a length even if it came chunked; DELETE and GET with an empty body keep what they
 * said.
 */
function contentLengthOf(exchange: Exchange): number {
  if (exchange.body !== null) return exchange.body.length
  return exchange.declaresLength ? exchange.contentLength : -1
}
