// telemetry/access-log.ts: one access line, put together but not written, against JSON.stringify of the same fields.
import { AccessLog } from '../../dist/src/telemetry/access-log.js'
import { finished, table } from './exchange.mjs'
import { measure } from './measure.mjs'

const routes = table(
  'consumers:\n  bench: { secret: not-a-secret-but-thirty-two-long }\nservices:\n  demo: { endpoints: [http://127.0.0.1:9000] }\nroutes:\n  - { match: { path: / }, service: demo, auth: x-m }\n',
)
const exchange = finished(routes)
const log = new AccessLog({ write() {} })
const JSON_FIELDS = JSON.parse(log.format(exchange, 1_700_000_000_002_345))

measure('AccessLog.format', (i) => log.format(exchange, 1_700_000_000_002_345 + i))
measure('JSON.stringify of the same fields', (i) => JSON.stringify({ ...JSON_FIELDS, time: 1_700_000_000_002 + i }))
