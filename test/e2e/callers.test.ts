// Callers known by API key, by password, by one of several ways; whose address is let in; what of a request ends at the
// gateway, and what it tells the service about who is calling.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { basic, keptAsScrypt, keptAsSha256 } from '../support/credentials.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { type Answer, call, type RequestParts } from '../support/raw-client.js'
import { type Caller, signedHeaders, withWrongDigit } from '../support/signing.js'

const KEY = 'key-of-shop-0123456789'
const NEW_KEY = 'new-key-of-shop-0123456789'
const ENV_KEY = 'key-of-depot-from-the-environment'
const PASSWORD = 'correct horse: battery stapl\u00e9'
/** A fifth of what the gateway itself would make of it, so that this suite does not take a minute. */
const KEPT_PASSWORD = keptAsScrypt(PASSWORD)
const LONG_PASSWORD = 'c1f3f6c2b9d94f0e8a6d'
const SIGNER: Caller = { source: 'shop', secret: 'the-secret-of-shop' }

let echo: Origin
let gateway: Gateway

beforeAll(async () => {
  echo = await startEcho()
  const route = (path: string, auth: string | string[], more: object = {}) => ({
    match: { path },
    service: 'echo',
    auth,
    logQuery: true,
    ...more,
  })
  gateway = await startGateway({
    workers: 1,
    config: {
      apiKeys: { query: 'api_key' },
      consumers: {
        shop: { secret: SIGNER.secret, apiKeys: [keptAsSha256(KEY), keptAsSha256(NEW_KEY)], groups: 'partners' },
        depot: { apiKeys: 'env:DEPOT_KEY', password: 'env:DEPOT_PASSWORD' },
        script: { password: keptAsSha256(LONG_PASSWORD), groups: ['partners', 'scripts'] },
      },
      services: { echo: { endpoints: [echo.url] } },
      routes: [
        route('/key', 'api-key'),
        route('/key-kept', 'api-key', { stripCredentials: false }),
        route('/basic', 'basic'),
        route('/basic-kept', 'basic', { stripCredentials: false }),
        route('/any', ['x-m', 'basic', 'api-key']),
        route('/signed', 'x-m'),
        route('/open', 'none'),
        route('/partners', ['api-key', 'basic'], { allow: ['group:partners'] }),
        route('/limited', 'api-key', { limits: [{ by: 'consumer', rate: '1/h' }] }),
        route('/near', 'none', { addresses: { allow: ['127.0.0.0/8', '::1'] } }),
        route('/far', 'api-key', { addresses: { allow: ['192.0.2.0/24', '2001:db8::/32'], deny: ['192.0.2.66'] } }),
      ],
      trustedProxies: ['127.0.0.1'],
    },
    env: { DEPOT_KEY: ENV_KEY, DEPOT_PASSWORD: KEPT_PASSWORD },
    secrets: [
      ...[KEY, NEW_KEY, ENV_KEY, PASSWORD, LONG_PASSWORD],
      ...[KEY, NEW_KEY, LONG_PASSWORD].map((text) => keptAsSha256(text).slice(7)),
      ...[basic('depot', PASSWORD), basic('script', LONG_PASSWORD)].map((value) => value.slice(6)),
    ],
  })
})

afterAll(async () => {
  await gateway.close()
  await echo.close()
})

const ask = (target: string, headers: RequestParts['headers'] = {}): Promise<Answer> =>
  call(gateway.port, { target, headers })
const reasonOf = async (answer: Answer) => (await gateway.logged(answer)).reason

/** Refused, with this reason in the log, and nothing has come to the service. */
async function refused(request: Promise<Answer>, reason: string, status = 401): Promise<Answer> {
  const answer = await request
  expect(answer.status).toBe(status)
  expect(await reasonOf(answer)).toBe(reason)
  expect(echo.requests.all.filter((seen) => headerOf(seen, 'x-rid')[0] === answer.rid)).toEqual([])
  return answer
}

describe('an API key', () => {
  test.each([
    ['kept as a hash', KEY, 'shop'],
    ['of several', NEW_KEY, 'shop'],
    ['from the environment', ENV_KEY, 'depot'],
  ])('%s gets through, and ends at the gateway', async (_name, key, consumer) => {
    const answer = await ask('/key', { 'X-Api-Key': key })
    expect(answer.status).toBe(200)
    const seen = answer.json<Seen>()
    expect(headerOf(seen, 'x-api-key')).toEqual([])
    expect(headerOf(seen, 'x-consumer-username')).toEqual([consumer])
    expect((await gateway.logged(answer)).consumer).toBe(consumer)
  })

  test.each([
    [`/key?api_key=${KEY}`, '/key', 'api_key=***'],
    [`/key?a=1&api%5Fkey=${KEY}&b=%20`, '/key?a=1&b=%20', 'a=1&api_key=***&b=%20'],
  ])('in the query gets through, and is gone from query and log: %s', async (target, url, query) => {
    const answer = await ask(target)
    expect(answer.json<Seen>().url).toBe(url)
    expect((await gateway.logged(answer)).query).toBe(query)
  })

  test('is hidden in the log also where it was sent to a route that has no use for it, or is wrong', async () => {
    const answer = await ask(`/open?x=1&api_key=${KEY}`)
    expect(answer.json<Seen>().url).toBe(`/open?x=1&api_key=${KEY}`)
    expect((await gateway.logged(answer)).query).toBe('x=1&api_key=***')
    const wrong = await refused(ask('/key?api_key=almost'), 'API key unknown')
    expect((await gateway.logged(wrong)).query).toBe('api_key=***')
  })

  test('is passed on where the route says so', async () => {
    expect(headerOf((await ask('/key-kept', { 'x-api-key': KEY })).json<Seen>(), 'x-api-key')).toEqual([KEY])
    expect((await ask(`/key-kept?api_key=${KEY}`)).json<Seen>().url).toBe(`/key-kept?api_key=${KEY}`)
  })

  test.concurrent.each([
    ['missing', '/key', {}, 'API key missing'],
    ['empty', '/key', { 'x-api-key': '' }, 'API key missing'],
    ['unknown', '/key', { 'x-api-key': `${KEY}x` }, 'API key unknown'],
    ['its own hash', '/key', { 'x-api-key': keptAsSha256(KEY) }, 'API key unknown'],
    ['the digits of its hash', '/key', { 'x-api-key': keptAsSha256(KEY).slice(7) }, 'API key unknown'],
    ['sent twice', '/key', { 'x-api-key': [KEY, KEY] }, 'several API keys'],
    ['in header and query', `/key?api_key=${KEY}`, { 'x-api-key': KEY }, 'several API keys'],
    ['twice in the query', `/key?api_key=${KEY}&api_key=${KEY}`, {}, 'several API keys'],
    ['as a password', '/key', { authorization: basic('shop', KEY) }, 'API key missing'],
  ])('%s is refused', async (_name, target, headers, reason) => {
    const answer = await refused(ask(target, headers), reason)
    expect(answer.one('www-authenticate')).toBe('ApiKey')
  })
})

describe('a password', () => {
  test.each([
    ['from the environment, with a colon and more than ASCII in it', 'depot', basic('depot', PASSWORD)],
    ['kept as SHA-256', 'script', basic('script', LONG_PASSWORD)],
    ['with the scheme in capitals', 'script', basic('script', LONG_PASSWORD, 'BASIC')],
  ])('%s gets through, also again, and ends at the gateway', async (_name, consumer, authorization) => {
    for (let i = 0; i < 3; i++) {
      const seen = (await ask('/basic', { authorization })).json<Seen>()
      expect(headerOf(seen, 'authorization')).toEqual([])
      expect(headerOf(seen, 'x-consumer-username')).toEqual([consumer])
    }
  })

  test('is checked once for many requests at once, and each is answered', async () => {
    const authorization = basic('depot', PASSWORD, 'bAsIc')
    const answers = await Promise.all(Array.from({ length: 40 }, () => ask('/basic', { authorization })))
    expect(answers.map(({ status }) => status)).toEqual(new Array(40).fill(200))
  })

  test('is passed on where the route says so', async () => {
    const authorization = basic('depot', PASSWORD)
    expect(headerOf((await ask('/basic-kept', { authorization })).json<Seen>(), 'authorization')).toEqual([
      authorization,
    ])
  })

  test.concurrent.each([
    ['wrong', basic('depot', `${PASSWORD}x`), 'user or password wrong'],
    ['of another user', basic('script', PASSWORD), 'user or password wrong'],
    ['for nobody', basic('nobody', PASSWORD), 'user or password wrong'],
    ['for a consumer without one', basic('shop', ''), 'user or password wrong'],
    ['empty', basic('depot', ''), 'user or password wrong'],
    ['its own hash', basic('script', keptAsSha256(LONG_PASSWORD)), 'user or password wrong'],
    ['without a colon', `Basic ${Buffer.from('depot').toString('base64')}`, 'Authorization: Basic malformed'],
    ['with a control character', basic('depot', `${PASSWORD}\n`), 'Authorization: Basic malformed'],
    ['not in base64', 'Basic de*pot', 'Authorization: Basic malformed'],
    ['of another scheme', `Bearer ${basic('depot', PASSWORD).slice(6)}`, 'Authorization: Basic missing'],
  ])('%s is refused', async (_name, authorization, reason) => {
    const answer = await refused(ask('/basic', { authorization }), reason)
    expect(answer.one('www-authenticate')).toBe('Basic realm="tidegate", charset="UTF-8"')
  })

  test('that is missing, or there twice, is refused', async () => {
    await refused(ask('/basic'), 'Authorization: Basic missing')
    const authorization = basic('depot', PASSWORD)
    await refused(ask('/basic', { authorization: [authorization, authorization] }), 'several Authorization fields')
  })

  // Where they are too many: guesses.test.ts.
  test('that is wrong, in more requests than are checked at once, is refused', async () => {
    const answers = await Promise.all(
      Array.from({ length: 20 }, (_, i) => ask('/basic', { authorization: basic('depot', `guess ${i}`) })),
    )
    expect([...new Set(answers.map(({ status }) => status))]).toEqual([401])
    expect((await ask('/basic', { authorization: basic('script', LONG_PASSWORD) })).status).toBe(200)
  })
})

describe('where several kinds are allowed', () => {
  test('each gets through', async () => {
    for (const headers of [
      signedHeaders(SIGNER, { target: '/any' }),
      { authorization: basic('script', LONG_PASSWORD) },
      { 'x-api-key': KEY },
    ]) {
      expect((await ask('/any', headers)).status).toBe(200)
    }
  })

  test('a signed body is checked, and a keyed one streams', async () => {
    const post = (headers: Record<string, string>) =>
      call(gateway.port, { method: 'POST', target: '/any', body: 'hello', headers })
    const signed = signedHeaders(SIGNER, { method: 'POST', target: '/any', body: 'hello' })
    expect((await post(signed)).json<Seen>().bodyBytes).toBe(5)
    expect((await post(signedHeaders(SIGNER, { method: 'POST', target: '/any', body: 'other' }))).status).toBe(401)
    expect((await post({ 'x-api-key': KEY })).json<Seen>().bodyBytes).toBe(5)
  })

  test('without any, the answer asks for each', async () => {
    const answer = await refused(ask('/any'), 'no credentials')
    expect(answer.all('www-authenticate')).toEqual(['x-m', 'Basic realm="tidegate", charset="UTF-8"', 'ApiKey'])
  })

  test('the first in the list that is there decides: what is wrong is not mended by another that is right', async () => {
    const signed = signedHeaders(SIGNER, { target: '/any' })
    const forged = { ...signed, 'x-m': withWrongDigit(signed['x-m']) }
    await refused(ask('/any', { ...forged, 'x-api-key': KEY }), 'x-m does not match')
    await refused(ask('/any', { 'x-source': 'shop', 'x-api-key': KEY }), 'x-time missing or not Unix seconds')
    await refused(ask('/any', { authorization: basic('script', 'wrong'), 'x-api-key': KEY }), 'user or password wrong')
    const both = await ask('/any', { 'x-api-key': KEY, authorization: basic('script', LONG_PASSWORD) })
    expect(headerOf(both.json<Seen>(), 'x-consumer-username')).toEqual(['script'])
  })

  test('all of them end at the gateway, whichever decided', async () => {
    const seen = (
      await ask('/any', { ...signedHeaders(SIGNER, { target: '/any' }), authorization: 'Basic x', 'x-api-key': 'y' })
    ).json<Seen>()
    expect(['x-m', 'authorization', 'x-api-key'].map((name) => headerOf(seen, name))).toEqual([[], [], []])
    expect(headerOf(seen, 'x-source')).toEqual(['shop'])
  })
})

describe('x-consumer-username', () => {
  const forged = ['X-Consumer-Username', 'x_consumer_username', 'X-Consumer_Username', 'x_consumer-username']

  test.each(forged)('is never the caller’s own: %s', async (name) => {
    const open = (await ask('/open', { [name]: 'admin' })).json<Seen>()
    expect(open.rawHeaders.join()).not.toContain('admin')
    const keyed = (await ask('/key', { [name]: ['admin', 'admin'], 'x-api-key': KEY })).json<Seen>()
    expect(keyed.rawHeaders.join()).not.toContain('admin')
    expect(headerOf(keyed, 'x-consumer-username')).toEqual(['shop'])
  })

  test('cannot be kept from the service either', async () => {
    const headers = { connection: 'x-consumer-username', 'x-api-key': KEY }
    expect(headerOf((await ask('/key', headers)).json<Seen>(), 'x-consumer-username')).toEqual(['shop'])
  })

  test('names who signed', async () => {
    const seen = (await ask('/signed', signedHeaders(SIGNER, { target: '/signed' }))).json<Seen>()
    expect(headerOf(seen, 'x-consumer-username')).toEqual(['shop'])
  })
})

test('a group lets in those who are in it, however they are known', async () => {
  expect((await ask('/partners', { 'x-api-key': KEY })).status).toBe(200)
  expect((await ask('/partners', { authorization: basic('script', LONG_PASSWORD) })).status).toBe(200)
  await refused(ask('/partners', { 'x-api-key': ENV_KEY }), 'consumer not allowed on this route', 403)
})

test('limits count by consumer, whichever of its keys was used', async () => {
  expect((await ask('/limited', { 'x-api-key': KEY })).status).toBe(200)
  expect((await ask('/limited', { 'x-api-key': NEW_KEY })).status).toBe(429)
  expect((await ask('/limited', { 'x-api-key': ENV_KEY })).status).toBe(200)
})

describe('addresses', () => {
  const from = (address: string, headers: Record<string, string> = {}) =>
    ask('/far', { 'x-forwarded-for': address, ...headers })

  test('in the list are let in, by the socket or by whom a trusted proxy vouches for', async () => {
    expect((await ask('/near')).status).toBe(200)
    for (const address of ['192.0.2.1', '::ffff:192.0.2.1', '2001:db8::1', '2001:0DB8:0:0::2']) {
      expect((await from(address, { 'x-api-key': KEY })).status).toBe(200)
    }
  })

  test('others get 403 before their credentials are looked at', async () => {
    for (const address of ['192.0.3.1', '192.0.2.66', '::ffff:192.0.2.66', '2001:db9::1', '127.0.0.1']) {
      await refused(from(address, { 'x-api-key': KEY }), 'address not allowed on this route', 403)
    }
    await refused(from('192.0.3.1'), 'address not allowed on this route', 403)
    await refused(ask('/near', { 'x-forwarded-for': '192.0.2.1' }), 'address not allowed on this route', 403)
  })
})
