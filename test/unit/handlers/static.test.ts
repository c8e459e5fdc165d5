// The static handler, without a socket.
import { expect, test } from 'vitest'
import type { StaticRules } from '../../../src/config/compile.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import type { HandlerContext } from '../../../src/handlers/handler.js'
import { StaticHandler } from '../../../src/handlers/static.js'

const rules: StaticRules = {
  kind: 'static',
  service: null,
  status: 203,
  headers: ['Content-Type', 'text/plain', 'X-Place', 'Bär'],
  body: Buffer.from('later'),
}

function answered(
  method: string,
  rules: StaticRules,
): { exchange: Exchange; client: MemoryDownstream; concluded: number } {
  const client = new MemoryDownstream(method)
  const exchange = new Exchange(client, 0, method, '/', undefined, Fields.of([]))
  exchange.rid = 'r1'
  exchange.fallback = 'upstream_error'
  client.owner = exchange
  let concluded = 0
  const context = { conclude: () => concluded++ } as unknown as HandlerContext
  new StaticHandler(context, rules).handle(exchange)
  return { exchange, client, concluded }
}

test('the response has its own fields, byte for byte, and says why it is there', () => {
  const { exchange, client, concluded } = answered('GET', rules)
  expect(client.head?.line).toBe('203 Non-Authoritative Information')
  expect(Buffer.from(client.field('x-place'), 'latin1').toString()).toBe('Bär')
  expect([client.field('x-tidegate-fallback'), client.body.toString()]).toEqual(['upstream_error', 'later'])
  expect([exchange.status, exchange.code, concluded]).toEqual([203, '', 1])
})

test.each([
  ['GET', 204, null],
  ['GET', 304, 5],
  ['HEAD', 200, 5],
])('the response ends with its head: %s, %i', (method, status, length) => {
  const { exchange, client } = answered(method, { ...rules, status })
  expect([client.body.length, client.length, exchange.bytesOut]).toEqual([0, length, 0])
})
