// The key of a request: consumer, address, header or cookie.
import { describe, expect, it } from 'vitest'
import type { Consumer } from '../../../src/config/compile.js'
import type { RequestKey } from '../../../src/config/route-table.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import { requestKeyReader } from '../../../src/exchange/request-key.js'

function keyOf(key: RequestKey, fields: string[] = [], consumer: string | null = null): string {
  const exchange = new Exchange(new MemoryDownstream(), 0, 'GET', '/', undefined, Fields.of(fields))
  exchange.consumer = consumer === null ? null : ({ name: consumer } as Consumer)
  exchange.clientAddress = '192.0.2.7'
  return requestKeyReader(key)(exchange)
}

describe('the key of a request', () => {
  it('by consumer, address and header', () => {
    expect(keyOf({ kind: 'consumer' }, [], 'ada')).toBe('ada')
    expect(keyOf({ kind: 'consumer' })).toBe('')
    expect(keyOf({ kind: 'address' })).toBe('192.0.2.7')
    expect(keyOf({ kind: 'header', name: 'x-tenant' }, ['x-tenant', 'blue'])).toBe('blue')
    expect(keyOf({ kind: 'header', name: 'x-tenant' }, ['x-other', 'blue'])).toBe('')
  })

  it.each([
    ['sid=1', '1'],
    ['a=2; sid=1; b=3', '1'],
    ['a=2;sid=1', '1'],
    ['xsid=2; sid=1', '1'],
    ['sidx=2; sid=1', '1'],
    ['a=sid=9; sid=1', '1'],
    ['sid=1; sid=2', '1'],
    ['sid="a b, c"; d=1', '"a b, c"'],
    ['sid=', ''],
    ['xsid=2; a=sid', ''],
    ['', ''],
  ])('by cookie: %s', (cookies, value) => {
    expect(keyOf({ kind: 'cookie', name: 'sid' }, ['cookie', cookies])).toBe(value)
  })
})
