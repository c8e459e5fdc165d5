// What a client gets of a response that was decided on, without a socket.
import { describe, expect, test } from 'vitest'
import type { LimitPolicy, Route } from '../../../src/config/compile.js'
import { answerWhole, cut, refuse, StreamedAnswer } from '../../../src/downstream/answer.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import { Rejection } from '../../../src/exchange/outcome.js'

function exchangeOf(
  method = 'GET',
  client = new MemoryDownstream(method),
): { exchange: Exchange; client: MemoryDownstream } {
  const exchange = new Exchange(client, 0, method, '/', undefined, Fields.of([]))
  exchange.rid = 'r1'
  exchange.route = { challenge: '\r\nwww-authenticate: Basic' } as Route
  client.owner = exchange
  return { exchange, client }
}

const limited = new Rejection('rate_limited', 'over the limit')
const down = new Rejection('upstream_error', 'connection refused')

describe('a refusal', () => {
  test('is a problem with its code and the request’s id', () => {
    const { exchange, client } = exchangeOf()
    refuse(exchange, new Rejection('forbidden', 'why'), 0)
    expect([client.head?.line, client.ended, client.closes]).toEqual(['403 Forbidden', true, false])
    expect(client.head?.fields).toEqual(['content-type', 'application/problem+json', 'x-rid', 'r1'])
    expect(JSON.parse(client.body.toString())).toMatchObject({ status: 403, code: 'forbidden', rid: 'r1' })
    expect([exchange.status, exchange.code, exchange.reason]).toEqual([403, 'forbidden', 'why'])
    expect(exchange.bytesOut).toBe(client.body.length)
  })

  test('of missing credentials has the route’s challenge', () => {
    const { exchange, client } = exchangeOf()
    refuse(exchange, new Rejection('unauthorized', ''), 0)
    expect(client.field('www-authenticate')).toBe('Basic')
  })

  test('over a limit says so, and when to come again', () => {
    const { exchange, client } = exchangeOf()
    const measure = { kind: 'window', quantity: 10, windowSeconds: 60 }
    exchange.limit = { name: 'calls', headers: false, measure } as unknown as LimitPolicy
    exchange.limitResetSeconds = 30
    refuse(exchange, limited, 3)
    expect([client.field('retry-after'), client.field('ratelimit-policy'), client.field('ratelimit')]).toEqual([
      '3',
      '"calls";q=10;w=60',
      '"calls";r=0;t=30',
    ])
  })

  test('to HEAD has no body, but its length', () => {
    const { exchange, client } = exchangeOf('HEAD')
    refuse(exchange, down, 0)
    expect([client.body.length, exchange.bytesOut]).toEqual([0, 0])
    expect(client.length).toBeGreaterThan(50)
  })

  test('of a doubtful request ends its connection', () => {
    const { exchange, client } = exchangeOf()
    refuse(exchange, new Rejection('bad_request', '', true), 0)
    expect(client.closes).toBe(true)
  })

  test('is only noted where the client has left', () => {
    const { exchange, client } = exchangeOf()
    client.leave()
    refuse(exchange, down, 0)
    expect([client.head, exchange.status, exchange.bytesOut]).toEqual([null, 502, 0])
  })
})

describe('an upstream’s response', () => {
  test('goes on without the fields of its connection, and without those that the gateway writes', () => {
    const { exchange, client } = exchangeOf()
    exchange.status = 200
    const headers = {
      connection: 'close, X-Hop',
      'x-hop': '1',
      'keep-alive': 'timeout=5',
      'content-length': '2',
      date: 'then',
      'x-rid': 'theirs',
      'x-tidegate-fallback': 'no_endpoint',
      'set-cookie': ['a=1', 'b=2'],
      etag: '"\xe9"',
    }
    answerWhole(exchange, 'Fine', headers, Buffer.from('ok'), -1)
    expect(client.head).toEqual({
      status: 200,
      line: '200 Fine',
      fields: ['set-cookie', 'a=1', 'set-cookie', 'b=2', 'etag', '"\xe9"', 'x-rid', 'r1'],
    })
    expect([client.length, client.body.toString(), exchange.bytesOut]).toEqual([2, 'ok', 2])
  })

  test('may end with its head', () => {
    const { exchange, client } = exchangeOf('HEAD')
    exchange.status = 200
    answerWhole(exchange, '', {}, null, 700)
    expect([client.head?.line, client.length, client.ended, exchange.bytesOut]).toEqual(['200 ', 700, true, 0])
  })

  test('in parts waits for the client, and goes on', () => {
    const { exchange, client } = exchangeOf()
    exchange.status = 200
    let drained = 0
    const answer = new StreamedAnswer(exchange, 'OK', {}, 6, () => drained++)
    expect([answer.send(Buffer.from('one')), answer.waiting, answer.drained]).toEqual([true, false, true])
    client.stall()
    expect([answer.send(Buffer.from('two')), answer.waiting, answer.drained]).toEqual([false, true, false])
    client.drain()
    expect([drained, answer.waiting, answer.drained]).toEqual([1, false, true])
    answer.end()
    expect([client.body.toString(), client.ended, exchange.bytesOut]).toEqual(['onetwo', true, 6])
  })

  test('that cannot be completed is cut', () => {
    const { exchange, client } = exchangeOf()
    exchange.status = 200
    const answer = new StreamedAnswer(exchange, 'OK', {}, -1, () => {})
    answer.flushHead()
    expect([client.begun, client.head?.status]).toEqual([true, 200])
    cut(exchange)
    expect([client.ended, client.wasCut]).toEqual([false, true])
  })
})
