// upstream/cluster/: what it costs to choose an endpoint, by each balancer, over different numbers of endpoints. Nothing
// else of a request is here; each choice begins a request at the endpoint and ends one that was begun before, so that
// what is in flight differs.

import { BreakerTable } from '../../dist/src/state/breaker-table.js'
import { EndpointTable } from '../../dist/src/state/endpoint-table.js'
import { openSegment } from '../../dist/src/state/open-segment.js'
import { SECTIONS } from '../../dist/src/state/sections.js'
import { NONE } from '../../dist/src/upstream/cluster/balancer.js'
import { Upstreams } from '../../dist/src/upstream/upstreams.js'
import { table } from './exchange.mjs'
import { measure } from './measure.mjs'

const IN_FLIGHT = 64

const spec = { workers: 2, rateLimitKeys: 64, services: 8, endpoints: 256, routes: 1, branches: 1 }
const segment = openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
const upstreams = new Upstreams({
  owner: 0,
  breakers: new BreakerTable(segment),
  worker: 0,
  endpoints: new EndpointTable(segment, spec),
  connections: 128,
  zone: '',
  nowUs: () => segment.nowUs(),
  onBreakerChange() {},
  onEndpointChange() {},
})

function clusterOf(count, balance, weights = [1]) {
  const endpoints = Array.from(
    { length: count },
    (_, i) => `{ url: 'http://127.0.0.1:${9000 + i}', weight: ${weights[i % weights.length]} }`,
  )
  const { services } = table(
    `services: { s: { endpoints: [${endpoints}], balance: ${balance} } }\nroutes: [{ match: {}, service: s, auth: none }]`,
  )
  return upstreams.clustersOf(services)[0]
}

function choose(name, cluster) {
  const running = Array.from({ length: IN_FLIGHT }, () => cluster.pick(1, NONE))
  for (const state of running) state.inFlight++
  measure(name, (i) => {
    const at = i % IN_FLIGHT
    running[at].inFlight--
    const state = cluster.pick(i | 1, NONE)
    state.inFlight++
    running[at] = state
    return state.inFlight
  })
}

for (const count of [1, 2, 4, 16, 256]) {
  for (const balance of ['p2c', 'round-robin', 'ewma', '{ hash: path }'])
    choose(`${balance}, ${count} endpoints`, clusterOf(count, balance))
}
for (const balance of ['p2c', 'round-robin'])
  choose(`${balance}, 4 weighted endpoints`, clusterOf(4, balance, [1, 2, 3, 4]))
await upstreams.close()
process.exit()
