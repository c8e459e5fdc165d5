// A compiled route table and an exchange in the state each step finds it in, for the files beside this one. Needs `npm
// run build`.
import { compile } from '../../dist/src/config/compile.js'
import { loadConfig } from '../../dist/src/config/load.js'
import { MemoryDownstream } from '../../dist/src/downstream/memory.js'
import { Exchange } from '../../dist/src/exchange/exchange.js'
import { Fields } from '../../dist/src/exchange/fields.js'

export const HEADERS = [
  ['host', 'demo.i.com'],
  ['user-agent', 'Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0'],
  ['accept', 'application/json'],
  ['accept-encoding', 'gzip, deflate, br'],
  ['x-source', 'bench'],
  ['x-time', '1700000000'],
  ['x-m', 'b7e23ec29af22b0b4e41da31e868d57226121c84b7e23ec29af22b0b4e41da31'],
  ['connection', 'keep-alive'],
].flat()

export function table(yaml) {
  const { config, settings } = loadConfig({ env: {}, text: { yaml, origin: 'micro.yaml' } })
  return compile(config, settings)
}

/** As it is when the answer has been sent. */
export function finished(routes) {
  const exchange = new Exchange(
    new MemoryDownstream(),
    1_700_000_000_000_000,
    'GET',
    '/orders/12345',
    '',
    Fields.of(HEADERS),
  )
  exchange.host = 'demo.i.com'
  exchange.peerAddress = '192.0.2.17'
  exchange.clientAddress = '192.0.2.17'
  exchange.rid = '4bf92f3577b34da6a3ce929d0e0e4736'
  exchange.route = routes.routes[0]
  exchange.consumer = routes.consumers[0] ?? null
  exchange.endpoint = routes.endpoints[0]
  exchange.status = 200
  exchange.bytesOut = 20
  exchange.attempts = 1
  exchange.upstreamUs = 1234
  return exchange
}
