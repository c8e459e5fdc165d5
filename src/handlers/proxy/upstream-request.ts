// What one attempt asks of its endpoint: method, target, fields and body, as undici's dispatchers take them. Runs per request. Knows nothing of
// attempts and answers: that is forward.ts.
import type { Endpoint } from '../../config/compile.js'
import { withoutParameter } from '../../config/parameter.js'
import type { Exchange } from '../../exchange/exchange.js'
import type { UpstreamRequest } from '../../upstream/upstream-request.js'
import { upstreamFields } from './headers.js'

/** For one dispatch: the body of an upload is opened with it. */
export function upstreamRequest(exchange: Exchange, endpoint: Endpoint): UpstreamRequest {
  return {
    method: exchange.method as UpstreamRequest['method'],
    path: upstreamTarget(exchange),
    headers: upstreamFields(exchange, endpoint.authority),
    body: exchange.body ?? exchange.upload?.open() ?? null,
    // undici closes the connection after a HEAD unless told otherwise.
    reset: false,
    // It would reconnect whenever a request's Host differs from the last one's.
    servername: endpoint.serverName,
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
