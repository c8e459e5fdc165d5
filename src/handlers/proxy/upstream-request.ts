// What one attempt asks of its endpoint: method, target, fields and body, of the exchange, as its route wants them.
// Runs per request.
import type { Endpoint } from '../../config/compile.js'
import { withoutParameter } from '../../config/parameter.js'
import type { Exchange } from '../../exchange/exchange.js'
import { FieldLines } from '../../upstream/field-lines.js'
import type { UpstreamRequest } from '../../upstream/upstream-request.js'
import { upstreamFields } from './headers.js'

/** For one attempt: the body of an upload is opened with it. */
export function upstreamRequest(exchange: Exchange, endpoint: Endpoint): UpstreamRequest {
  return {
    method: exchange.method,
    path: upstreamTarget(exchange),
    headers: upstreamFields(exchange, endpoint.authority),
    body: exchange.body ?? exchange.upload?.open() ?? null,
    // undici would reconnect whenever a request's Host differs from the last one's.
    servername: endpoint.serverName,
    reset: false,
  }
}

/** The same for a copy of the request, which has a body of its own and one more field. */
export function copiedRequest(
  exchange: Exchange,
  endpoint: Endpoint,
  body: Buffer | null,
  line: string,
): UpstreamRequest {
  const { text, contentLength } = upstreamFields(exchange, endpoint.authority)
  return {
    method: exchange.method,
    path: upstreamTarget(exchange),
    headers: new FieldLines(text + line, body === null ? contentLength : body.length),
    body,
    servername: endpoint.serverName,
    reset: false,
  }
}

/** Path and query as the route wants them at the service. */
function upstreamTarget(exchange: Exchange): string {
  const route = exchange.route!
  let path = exchange.canonicalPath
  if (route.stripPrefix !== null) path = path.slice(route.stripPrefix.length)
  if (route.rewrite !== null) path = route.rewrite + path
  if (path === '' || path.charCodeAt(0) !== 0x2f) path = `/${path}`
  if (!exchange.hasQuery) return path
  if (route.strippedParameter === null) return `${path}?${exchange.query}`
  const query = withoutParameter(exchange.query, route.strippedParameter)
  return query === '' ? path : `${path}?${query}`
}
