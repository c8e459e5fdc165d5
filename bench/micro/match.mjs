// config/match.ts: host, path and method to a route, in tables of different sizes.
import { createMatcher } from '../../dist/src/config/match.js'
import { table } from './exchange.mjs'
import { measure } from './measure.mjs'

const SERVICE = 'services:\n  demo: { endpoints: [http://127.0.0.1:9000] }\n'
const NO_HEADERS = { header: () => '' }

function routes(count) {
  const lines = Array.from(
    { length: count },
    (_, i) => `  - { match: { host: h${i % 50}.example.com, path: /api/v1/r${i} }, service: demo, auth: none }`,
  )
  return createMatcher(
    table(`${SERVICE}routes:\n  - { match: { path: / }, service: demo, auth: none }\n${lines.join('\n')}\n`),
  )
}

for (const count of [1, 50, 1000]) {
  const match = routes(count)
  const hosts = Array.from({ length: count }, (_, i) => `h${i % 50}.example.com`)
  const paths = Array.from({ length: count }, (_, i) => `/api/v1/r${i}/items/42`)
  measure(`match, ${count + 1} routes, one of them`, (i) =>
    match(hosts[i % count], paths[i % count], 'GET', NO_HEADERS),
  )
  measure(`match, ${count + 1} routes, the one for the rest`, () =>
    match('other.example.com', '/nothing/here', 'GET', NO_HEADERS),
  )
}
