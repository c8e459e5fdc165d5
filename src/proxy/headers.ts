// Which header fields cross the gateway, and the ones it writes itself. Pure; runs per request.
import type { Route } from '../config/compile.js'
import type { Exchange } from '../ingress/exchange.js'
import { traceparent, validTraceparent } from '../telemetry/trace.js'

/** Fields that belong to one connection (RFC 9110, 7.6.1, and the older Keep-Alive and Proxy-Connection that are still sent). */
const hopByHop = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
])

const HOST = 1
const VIA = 2
const TRACE_PARENT = 3
const TRACE_STATE = 4
const FORWARDED = 5
const FORWARDED_FOR = 6
const FORWARDED_PROTO = 7
const FORWARDED_HOST = 8
/** Stays on this hop, is written anew, or has been answered (Expect: uWS sends 100 Continue). */
const DROPPED = 9

/** Says who is calling (Kong's name for it). */
const CONSUMER_FIELD = 'x-consumer-username'
/** A caller's own never crosses, whatever the route, also not spelt so that CGI and its heirs take it for the same (RFC 3875, 4.1.18). */
const consumerFields = ['-', '_'].flatMap((a) => ['-', '_'].map((b) => `x${a}consumer${b}username`))

/** Request fields that are not passed on as they are. */
const special = new Map<string, number>([
  ...[...hopByHop, 'content-length', 'expect', 'x-rid', ...consumerFields].map((name) => [name, DROPPED] as const),
  ['host', HOST],
  ['via', VIA],
  ['traceparent', TRACE_PARENT],
  ['tracestate', TRACE_STATE],
  ['forwarded', FORWARDED],
  ['x-forwarded-for', FORWARDED_FOR],
  ['x-forwarded-proto', FORWARDED_PROTO],
  ['x-forwarded-host', FORWARDED_HOST],
])

const specialByRoute = new WeakMap<readonly string[], Map<string, number>>()

/** `special`, and the credentials that end here. */
function specialFor(stripped: readonly string[]): Map<string, number> {
  if (stripped.length === 0) return special
  let fields = specialByRoute.get(stripped)
  if (fields === undefined) {
    fields = new Map([...special, ...stripped.map((name) => [name, DROPPED] as const)])
    specialByRoute.set(stripped, fields)
  }
  return fields
}

/** Case-insensitive membership in a comma-separated list such as Connection's. */
export function hasToken(list: string, token: string): boolean {
  if (list === token) return true
  if (!list.includes(',')) return list.trim().toLowerCase() === token
  return list.split(',').some((item) => item.trim().toLowerCase() === token)
}

/** Whether a field stays on this hop: by its name, or because Connection names it. `name` is lower case. */
export function isHopByHop(name: string, connection: string | undefined): boolean {
  return hopByHop.has(name) || (connection !== undefined && connection !== 'keep-alive' && hasToken(connection, name))
}

/** uWS decodes header values as UTF-8 and undici writes them as latin1: what is not ASCII is turned into the bytes that came. */
function wireValue(value: string): string {
  return Buffer.from(value, 'utf8').toString('latin1')
}

/** RFC 7239, 6: an IPv6 address is quoted and bracketed. */
function forwardedNode(address: string): string {
  return address.includes(':') ? `"[${address}]"` : address
}

/**
 * The upstream request's fields as undici takes them: name, value, name, value …
 * What an untrusted caller says about forwarding is dropped (as Envoy and Traefik do); what a trusted proxy says is continued.
 */
export function upstreamHeaders(exchange: Exchange, authority: string): string[] {
  const peer = exchange.peerAddress
  const incoming = exchange.headers
  const out: string[] = []
  const { connection, isWide, consumer } = exchange
  const fields = specialFor((exchange.route as Route).strippedFields)
  const namesFields = connection !== '' && connection !== 'keep-alive' && connection !== 'close'
  let host = ''
  let via = ''
  let trace = ''
  let traceState = ''
  let forwarded = ''
  let forwardedFor = ''
  let forwardedProto = ''
  let forwardedHost = ''
  for (let i = 0; i < incoming.length; i += 2) {
    const name = incoming[i] as string
    const value = incoming[i + 1] as string
    switch (fields.get(name)) {
      case undefined:
        if (!namesFields || !hasToken(connection, name)) out.push(name, isWide ? wireValue(value) : value)
        break
      case HOST:
        host = value
        break
      case VIA:
        via = via === '' ? value : `${via}, ${value}`
        break
      case TRACE_PARENT:
        trace = value
        break
      case TRACE_STATE:
        traceState = traceState === '' ? value : `${traceState},${value}`
        break
      case FORWARDED:
        forwarded = forwarded === '' ? value : `${forwarded}, ${value}`
        break
      case FORWARDED_FOR:
        forwardedFor = forwardedFor === '' ? value : `${forwardedFor}, ${value}`
        break
      case FORWARDED_PROTO:
        forwardedProto = value
        break
      case FORWARDED_HOST:
        forwardedHost = value
        break
    }
  }
  if (!exchange.peerTrusted) forwarded = forwardedFor = forwardedProto = forwardedHost = ''
  const scheme = exchange.secure ? 'https' : 'http'
  // Without a Host there is none to tell of: HTTP/1.0 need not have one.
  const element = `for=${forwardedNode(peer)}${host === '' ? '' : `;host="${host}"`};proto=${scheme}`
  // RFC 9110, 7.6.3: the version that the request came in.
  const hop = exchange.isHttp10 ? '1.0 tidegate' : '1.1 tidegate'
  out.push(
    'host',
    exchange.route?.preserveHost && host !== '' ? host : authority,
    'x-forwarded-for',
    forwardedFor === '' ? peer : `${forwardedFor}, ${peer}`,
    'x-forwarded-proto',
    forwardedProto === '' ? scheme : forwardedProto,
    'forwarded',
    forwarded === '' ? element : `${forwarded}, ${element}`,
    'via',
    via === '' ? hop : `${via}, ${hop}`,
    'x-rid',
    exchange.rid,
    'traceparent',
    traceparent(trace, exchange.rid),
  )
  if (forwardedHost !== '' || host !== '') out.push('x-forwarded-host', forwardedHost === '' ? host : forwardedHost)
  if (consumer !== null) out.push(CONSUMER_FIELD, consumer.name)
  // Trace context, 3.3: the state of a trace that is not continued goes nowhere.
  if (traceState !== '' && validTraceparent(trace)) out.push('tracestate', traceState)
  // A body that was read whole has a length even if it came chunked; DELETE and GET with an empty body keep what they said.
  if (exchange.body !== null) out.push('content-length', String(exchange.body.length))
  else if (exchange.declaresLength) out.push('content-length', String(exchange.contentLength))
  return out
}
