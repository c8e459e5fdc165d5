// handlers/proxy/headers.ts: the upstream request's header fields from the caller's.
import { upstreamFields } from '../../dist/src/handlers/proxy/headers.js'
import { finished, table } from './exchange.mjs'
import { measure } from './measure.mjs'

const routes = table(
  'services:\n  demo: { endpoints: [http://127.0.0.1:9000] }\nroutes:\n  - { match: { path: / }, service: demo, auth: none }\n',
)
const exchange = finished(routes)

measure('upstreamFields, 8 fields of a caller', () => upstreamFields(exchange, '127.0.0.1:9000'))
