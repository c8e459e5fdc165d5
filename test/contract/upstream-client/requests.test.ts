// Requests as each upstream client sends them, and those that it refuses to send.
import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { RawExchange } from '../../support/origins.js'
import { clients } from '../../support/upstream-clients.js'
import { OK, open, serve } from '../../support/upstream-contract.js'
import { ask, send } from '../../support/upstream-verdict.js'

describe.each(clients)('a request, as $name sends it', (client) => {
  async function received(options: Parameters<typeof ask>[1], answer = OK) {
    let seen: { line: string; head: RawExchange['head']; body: string; trailers: unknown } | undefined
    const origin = await serve(async (exchange) => {
      const body = await exchange.body()
      seen = {
        line: exchange.head.startLine,
        head: exchange.head,
        body: body.bytes.toString('latin1'),
        trailers: body.trailers,
      }
      await exchange.send(answer)
    })
    const verdict = await ask(open(client, origin.url), options)
    return { verdict, origin, ...seen! }
  }

  test('request line, Host and fields', async () => {
    const { line, head, origin } = await received({ headers: ['x-a', '1', 'X-A', 'caf\xe9', 'accept', '*/*'] })
    expect(line).toBe('GET / HTTP/1.1')
    expect(head.one('host')).toBe(`127.0.0.1:${origin.port}`)
    expect(head.all('x-a')).toEqual(['1', 'caf\xe9'])
    expect(head.one('accept')).toBe('*/*')
    expect([head.one('content-length'), head.one('transfer-encoding')]).toEqual([null, null])
  })

  test('a Host of its own', async () => {
    const { head } = await received({ headers: ['host', 'a.example'] })
    expect(head.one('host')).toBe('a.example')
  })

  test.each(['POST', 'PUT', 'PATCH'] as const)('%s without a body says so', async (method) => {
    const { head, body } = await received({ method })
    expect([head.one('content-length'), body]).toEqual(['0', ''])
  })

  test.each([3, 8192, 8193, 300_000])('a body of %i bytes in memory', async (bytes) => {
    const body = Buffer.alloc(bytes, 'abc\xff', 'latin1')
    const seen = await received({ method: 'POST', headers: ['content-length', String(bytes)], body })
    expect(seen.head.all('content-length')).toEqual([String(bytes)])
    expect(seen.body).toBe(body.toString('latin1'))
  })

  test('a streamed body of known length', async () => {
    const { head, body } = await received({
      method: 'PUT',
      headers: ['content-length', '6'],
      body: Readable.from([Buffer.from('abc'), Buffer.from('def')]),
    })
    expect([head.one('content-length'), head.one('transfer-encoding'), body]).toEqual(['6', null, 'abcdef'])
  })

  test('a streamed body of unknown length', async () => {
    const { head, body } = await received({
      method: 'POST',
      body: Readable.from([Buffer.from('abc'), Buffer.from('def')]),
    })
    expect([head.one('content-length'), head.one('transfer-encoding'), body]).toEqual([null, 'chunked', 'abcdef'])
  })

  test('a stream that is there already leaves with nothing missing', async () => {
    const body = new Readable({ read() {} })
    body.push(Buffer.from('there'))
    body.push(null)
    expect((await received({ method: 'POST', body })).body).toBe('there')
  })

  test.each([
    ['longer', 'abcdef'],
    ['shorter', 'ab'],
  ])('a stream %s than it was announced fails, and does not look complete', async (_, text) => {
    const origin = await serve(async (exchange) => {
      await expect(exchange.body().then((body) => body.bytes.length > 3)).rejects.toThrow()
    })
    const sent = send(open(client, origin.url), {
      method: 'PUT',
      headers: ['content-length', '4'],
      body: Readable.from([Buffer.from(text)]),
    })
    expect(await sent.verdict).toMatchObject({ failure: 'bad_request' })
  })

  test('a stream that fails takes the request with it', async () => {
    const body = new Readable({ read() {} })
    body.push(Buffer.from('half'))
    const origin = await serve((exchange) => exchange.closed())
    const sent = send(open(client, origin.url), { method: 'POST', body })
    await origin.requests.take(1, () => true, 'the request')
    body.destroy(new Error('gone'))
    expect((await sent.verdict).failure).not.toBeNull()
    expect(sent.error!.message).toBe('gone')
  })

  test.each([
    ['CR LF in a value', { headers: ['x-a', 'b\r\nx-evil: c'] }],
    ['LF in a value', { headers: ['x-a', 'b\nc'] }],
    ['CR in a value', { headers: ['x-a', 'b\rc'] }],
    ['NUL in a value', { headers: ['x-a', 'b\0c'] }],
    ['a value that would turn into CR LF', { headers: ['x-a', 'b\u010d\u010ac'] }],
    ['CR LF in a Host', { headers: ['host', 'a\r\nx: y'] }],
    ['CR LF in a name', { headers: ['x\r\ny', 'b'] }],
    ['a colon in a name', { headers: ['x: y\r\nz', 'b'] }],
    ['an empty name', { headers: ['', 'b'] }],
    ['two Hosts', { headers: ['host', 'a', 'host', 'b'] }],
    [
      'two lengths',
      { method: 'POST', headers: ['content-length', '1', 'content-length', '1'], body: Buffer.from('a') },
    ],
    ['a length of letters', { method: 'POST', headers: ['content-length', 'x'], body: Buffer.from('a') }],
    ['a wrong length', { method: 'POST', headers: ['content-length', '2'], body: Buffer.from('a') }],
    ['Transfer-Encoding', { method: 'POST', headers: ['transfer-encoding', 'chunked'] }],
    ['Upgrade', { headers: ['upgrade', 'x'] }],
    ['Expect', { headers: ['expect', '100-continue'] }],
    ['CR LF in the path', { path: '/a\r\nb' }],
    ['a blank in the path', { path: '/a b' }],
    ['a path that is none', { path: 'a' }],
    ['a blank in the method', { method: 'GET / HTTP/1.1\r\nx: y' }],
  ])('%s is refused before a byte is sent', async (_, options) => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(client, origin.url)
    expect(await ask(pool, options as Parameters<typeof ask>[1])).toMatchObject({
      status: 0,
      failure: 'bad_request',
    })
    expect(origin.requests.all).toEqual([])
    expect((await ask(pool)).body).toBe('ok')
  })
})
