// What an issuer may answer in place of its key set, over real sockets: each bound is found, and told by name.
import { once } from 'node:events'
import type { ServerResponse } from 'node:http'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { fetchKeySet } from '../../../src/policy/key-set.js'
import { jwkOf, KeyServer, keyPair } from '../../support/tokens.js'

const KEY = jwkOf(keyPair('one', 'EdDSA'))
const server = new KeyServer()
let url = ''
beforeAll(async () => {
  url = await server.start()
})
afterAll(() => server.close())

async function fetched(timeoutMs = 5_000): Promise<unknown> {
  const signal = AbortSignal.timeout(timeoutMs)
  return (await fetchKeySet(url, { method: 'GET', redirect: 'manual', headers: new Headers(), signal })).json()
}

const json = (body: unknown) => (response: ServerResponse) => void response.end(JSON.stringify(body))

test('of a key set there is what tells keys, whatever else the issuer says', async () => {
  server.answers = json({ keys: [{ ...KEY, x5c: ['x'], more: 'x' }], more: 'x' })
  expect(await fetched()).toEqual({ keys: [KEY] })
})

test.each<[what: string, answer: (response: ServerResponse) => void, why: string]>([
  ['a status that is no 200', (response) => void response.writeHead(404).end(), 'answered 404'],
  ['a body over the limit', json({ keys: [KEY], more: 'x'.repeat(131_072) }), 'answer over 128 KiB'],
  [
    'one that is short only where it is compressed',
    (response) =>
      void response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync(Buffer.alloc(10_000_000, 0x20))),
    'answer over 128 KiB',
  ],
  ['too many keys', json({ keys: new Array(101).fill({ kty: 'OKP' }) }), '101 keys, 100 at most'],
  ['no JSON', (response) => void response.end('<html>'), 'answer is no JSON'],
  ['no key set', json([KEY]), 'answer is no key set'],
  ['keys that are none', json({ keys: [null] }), 'answer is no key set'],
])('%s is refused, and told', async (_, answer, why) => {
  server.answers = answer
  await expect(fetched()).rejects.toThrow(why)
})

test('a redirect is not followed, not even within the issuer', async () => {
  const before = server.requests
  server.answers = (response) => void response.writeHead(302, { location: url }).end()
  await expect(fetched()).rejects.toThrow('answered 302: redirects are not followed')
  expect(server.requests).toBe(before + 1)
})

test('a body that comes byte by byte is waited for no longer than the time for all of it', async () => {
  let closed: Promise<unknown> = Promise.resolve()
  server.answers = (response) => {
    const timer = setInterval(() => response.write(' '), 10)
    closed = once(response, 'close').then(() => clearInterval(timer))
  }
  await expect(fetched(200)).rejects.toThrow('no whole answer within 5 s')
  await closed
})

test('a body without an end is read no further', async () => {
  let closed: Promise<unknown> = Promise.resolve()
  server.answers = (response) => {
    const more = (): void => {
      while (!response.destroyed && response.write(Buffer.alloc(65_536)));
    }
    response.on('drain', more)
    closed = once(response, 'close')
    more()
  }
  await expect(fetched()).rejects.toThrow('answer over 128 KiB')
  await closed
})

test('a key with more operations than there are is left out: looking for a key compares each with all the others', async () => {
  const operations = Array.from({ length: 10_000 }, (_, i) => `o${i}`)
  server.answers = json({
    keys: [
      { ...KEY, key_ops: operations },
      { ...KEY, key_ops: ['verify'] },
    ],
  })
  expect(await fetched()).toEqual({ keys: [{ ...KEY, key_ops: ['verify'] }] })
})
