// Whoever guesses at credentials: limits on: failedAuth let through so many wrong ones and no more, however many come
// at once and whatever kind they are of; right ones cost nothing; guessing keeps nobody out of the queue for passwords;
// the log says which name was tried.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { basic, keptAsScrypt, keptAsSha256 } from '../support/credentials.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { httpSignatureKeys, signedMessage } from '../support/http-signing.js'
import { type Origin, startEcho } from '../support/origins.js'
import { type Answer, Connection, call, type RequestParts } from '../support/raw-client.js'
import { type Caller, signedHeaders, withWrongDigit } from '../support/signing.js'
import { hmacToken, inSeconds } from '../support/tokens.js'

const SHOP: Caller = { source: 'shop', secret: 'the-secret-of-shop' }
const KEY = 'key-of-shop-0123456789'
const OTHER_KEY = 'sk_live_0123456789abcdef'
const PASSWORD = 'correct horse'
const ISSUER_SECRET = 'the-secret-of-an-issuer-that-uses-hmac'
const password = (user: string, text: string) => ({ authorization: basic(user, text) })
const LIMIT = 5

let echo: Origin
let gateway: Gateway

beforeAll(async () => {
  echo = await startEcho()
  // What is used up stays used up for the length of any test.
  const guesses = (by: string | string[], more: object = {}) => ({
    by,
    rate: '1/h',
    burst: LIMIT,
    on: 'failedAuth',
    ...more,
  })
  const route = (path: string, auth: string | string[], ...limits: object[]) => ({
    match: { path },
    service: 'echo',
    auth,
    limits,
  })
  gateway = await startGateway({
    config: {
      trustedProxies: ['127.0.0.1'],
      consumers: {
        shop: {
          secret: SHOP.secret,
          apiKeys: [keptAsSha256(KEY), keptAsSha256(OTHER_KEY)],
          httpSignatureKeys: httpSignatureKeys('test-key-ed25519'),
        },
        person: { password: keptAsScrypt(PASSWORD, 12) },
        other: { password: keptAsScrypt(PASSWORD, 12) },
        script: { password: keptAsSha256('c1f3f6c2b9d94f0e8a6d') },
        token: { jwt: { i: 'alice' } },
      },
      jwt: { i: { issuer: 'i', audience: 'a', secrets: ISSUER_SECRET } },
      services: { echo: { endpoints: [echo.url] } },
      routes: [
        route('/basic', 'basic', guesses('address')),
        route('/by-name', 'basic', guesses('consumer')),
        route('/queue', 'basic'),
        route('/key', 'api-key', guesses('consumer')),
        route('/signed', 'x-m', guesses(['address', 'consumer'])),
        route('/message', 'http-signature', guesses('address')),
        route('/token', 'jwt', guesses('address')),
        route('/any', ['x-m', 'api-key', 'basic'], guesses('address')),
        route('/report', 'api-key', guesses('address', { mode: 'report' })),
        route('/told', 'api-key', guesses('address', { headers: true })),
      ],
    },
    secrets: [KEY, OTHER_KEY, PASSWORD, ISSUER_SECRET],
  })
})

afterAll(async () => {
  await gateway.close()
  await echo.close()
})

const ask = (target: string, headers: RequestParts['headers'] = {}, from = '192.0.2.1'): Promise<Answer> =>
  call(gateway.port, { target, headers: { ...headers, 'x-forwarded-for': from } })

/** So many answers of each status. */
function counted(answers: readonly Answer[]): Record<number, number> {
  const counts: Record<number, number> = {}
  for (const { status } of answers) counts[status] = (counts[status] ?? 0) + 1
  return counts
}

const together = (count: number, send: (i: number) => Promise<Answer>): Promise<Answer[]> =>
  Promise.all(Array.from({ length: count }, (_, i) => send(i)))

const xm = (target: string, source = 'shop') => signedHeaders({ ...SHOP, source }, { target })
const wrongXm = (target: string) => ({ ...xm(target), 'x-m': withWrongDigit(xm(target)['x-m'] as string) })
const token = (claims: object, secret = ISSUER_SECRET) => ({
  authorization: `Bearer ${hmacToken(secret, { iss: 'i', aud: 'a', sub: 'alice', exp: inSeconds(60), ...claims })}`,
})
const forged = () => token({ jti: randomBytes(4).toString('hex') }, 'another-secret-that-uses-hmac-as-well')
const message = (target: string) => signedMessage({ target }).headers as Record<string, string>
const wrongMessage = (target: string) => ({
  ...message(target),
  signature: `sig1=:${randomBytes(64).toString('base64')}:`,
})

describe('of wrong credentials that come at once, over both workers, as many are told so as the limit admits:', () => {
  test.each([
    ['passwords', '/basic', (i: number) => password('person', `guess ${i}`), () => password('person', PASSWORD)],
    ['API keys', '/key', (i: number) => ({ 'x-api-key': `guess-${i}` }), () => ({ 'x-api-key': KEY })],
    ['x-m', '/signed', () => wrongXm('/signed'), () => xm('/signed')],
    ['signatures of messages', '/message', () => wrongMessage('/message'), () => message('/message')],
    ['tokens', '/token', forged, () => token({})],
    [
      'any kind',
      '/any',
      (i: number) => (i % 2 === 0 ? password('person', `${i}`) : { 'x-api-key': `${i}` }),
      () => xm('/any'),
    ],
  ])('%s', async (_, target, wrong, right) => {
    const here = '192.0.2.7'
    // Right ones, as often as one likes, are not counted, and neither are requests without any.
    expect(counted(await together(20, () => ask(target, right(), here)))).toEqual({ 200: 20 })
    expect(counted(await together(20, () => ask(target, {}, here)))).toEqual({ 401: 20 })

    const answers = await together(40, (i) => ask(target, wrong(i), here))
    expect(counted(answers)).toEqual({ 401: LIMIT, 429: 40 - LIMIT })
    const refused = answers.find(({ status }) => status === 429) as Answer
    expect(refused.json()).toMatchObject({ code: 'rate_limited' })
    expect(Number(refused.one('retry-after'))).toBeGreaterThan(60)
    expect(refused.one('www-authenticate')).toBeNull()

    // A right one is not told from a wrong one any more, who has none is asked for some, and others are not concerned.
    expect((await ask(target, right(), here)).status).toBe(429)
    expect((await ask(target, {}, here)).status).toBe(401)
    expect((await ask(target, right(), '192.0.2.8')).status).toBe(200)
  })
})

test('by consumer: by the name that is claimed, whoever has it, from wherever it is tried', async () => {
  const by = (user: string) => (i: number) => ask('/by-name', password(user, `guess ${i}`), `198.51.100.${i}`)
  for (const user of ['person', 'nobody'])
    expect(counted(await together(20, by(user)))).toEqual({ 401: LIMIT, 429: 15 })
  expect((await ask('/by-name', password('person', PASSWORD))).status).toBe(429)
  expect((await ask('/by-name', password('other', PASSWORD))).status).toBe(200)
})

test('what cannot be a guess is not counted: credentials out of date, unreadable, or proven and not let in', async () => {
  const { 'x-m': mac, ...head } = xm('/signed')
  const refused: [string, Record<string, string>][] = [
    ['/signed', { ...head, 'x-m': mac as string, 'x-time': '1700000000' }],
    ['/signed', head as Record<string, string>],
    ['/token', token({ exp: inSeconds(-600) })],
    ['/token', token({ sub: 'nobody' })],
    ['/basic', { authorization: 'Basic de*pot' }],
  ]
  for (const [target, headers] of refused) {
    const answers = await together(LIMIT + 3, () => ask(target, headers, '192.0.2.99'))
    expect(counted(answers)).toEqual({ 401: LIMIT + 3 })
  }
})

test('a limit that reports lets all be told, and marks the line', async () => {
  const answers: Answer[] = []
  for (let i = 0; i < LIMIT + 2; i++) answers.push(await ask('/report', { 'x-api-key': `guess-${i}` }))
  expect(counted(answers)).toEqual({ 401: LIMIT + 2 })
  const lines = await Promise.all(answers.map((answer) => gateway.logged(answer)))
  expect(lines.map(({ limitReported }) => limitReported ?? false)).toEqual([...Array(LIMIT).fill(false), true, true])
})

test('a limit with headers tells what is left with each wrong one', async () => {
  const answer = await ask('/told', { 'x-api-key': 'guess' })
  expect(answer.one('ratelimit')).toMatch(/^"\/told#0";r=4;t=\d+$/)
  expect((await ask('/told', { 'x-api-key': KEY })).one('ratelimit')).toBeNull()
})

describe('the log', () => {
  const line = async (target: string, headers: Record<string, string>) => {
    const { consumer, tried, status } = await gateway.logged(await ask(target, headers, '203.0.113.1'))
    return { consumer, tried, status }
  }

  test('says which name was tried', async () => {
    expect(await line('/queue', password('person', 'wrong'))).toEqual({ tried: 'person', status: 401 })
    expect(await line('/queue', password('gr\u00fcn "quoted"', 'wrong'))).toEqual({
      tried: 'gr\u00fcn "quoted"',
      status: 401,
    })
    expect((await line('/queue', password('x'.repeat(300), 'wrong'))).tried).toBe(`${'x'.repeat(58)}\u2026`)
    expect(await line('/signed', xm('/signed', 'shpo'))).toEqual({ tried: 'shpo', status: 401 })
    expect(
      await line('/message', { ...message('/message'), 'signature-input': 'sig1=();created=1;keyid="k"' }),
    ).toEqual({
      tried: 'k',
      status: 401,
    })
    expect((await line('/queue', password('person', PASSWORD))).tried).toBeUndefined()
  })

  test('says none that may be a secret', async () => {
    for (const name of [SHOP.secret, KEY, OTHER_KEY]) {
      expect(await line('/queue', password(name, 'x'))).toEqual({ status: 401 })
    }
    expect(await line('/queue', password('an-api-key-of-another-service', ''))).toEqual({ status: 401 })
    expect(await line('/signed', xm('/signed', SHOP.secret))).toEqual({ status: 401 })
  })
})

describe('while many connections guess at passwords without a pause', () => {
  /** Guesses until told to stop; then the statuses of all answers. */
  function guessing(
    connections: number,
    from: (i: number) => string,
    user: (i: number) => string,
  ): () => Promise<Set<number>> {
    const statuses = new Set<number>()
    let going = true
    const clients = Array.from({ length: connections }, async (_, i) => {
      const connection = await Connection.open(gateway.port)
      for (let n = 0; going; n++) {
        const headers = { ...password(user(i), `guess ${i} ${n}`), 'x-forwarded-for': from(i) }
        statuses.add((await connection.exchange({ target: '/queue', headers })).status)
      }
      connection.destroy()
    })
    return async () => {
      going = false
      await Promise.all(clients)
      return statuses
    }
  }

  test.each([
    ['from the same address and at the same name', () => '192.0.2.1', () => 'other'],
    ['from another address, at any name', () => '192.0.2.2', (i: number) => `name ${i}`],
    ['from any address, at another name', (i: number) => `192.0.2.${100 + i}`, () => 'person'],
  ])('%s, the right one gets through', async (_, from, user) => {
    const stop = guessing(60, from, user)
    // Each time another way to write it, which no worker remembers.
    for (let spaces = 1; spaces <= 4; spaces++) {
      const { authorization } = password('other', PASSWORD)
      const answer = await ask('/queue', { authorization: authorization.replace(' ', ' '.repeat(spaces)) })
      expect(answer.status).toBe(200)
    }
    expect(await stop()).toEqual(new Set([401]))
  })

  // The queue is full only where each guess waits for a scrypt: so does one for nobody, or for someone whose password
  // is kept otherwise.
  test.each(['person', 'nobody', 'shop', 'script'])(
    'what does not fit into the queue is told to come back: for %s',
    async (user) => {
      const connections = await Promise.all(Array.from({ length: 600 }, () => Connection.open(gateway.port)))
      const answers = connections.map((connection, i) =>
        connection.exchange({ target: '/queue', headers: password(user, `guess ${i}`) }),
      )
      const statuses = answers.map(async (answer) => {
        const { status } = await answer
        return status === 503 ? answer : Promise.reject(new Error('not busy'))
      })
      const busy = await Promise.any(statuses)
      expect(busy.one('retry-after')).toBe('1')
      expect(await gateway.logged(busy)).toMatchObject({ code: 'overloaded', reason: 'password queue full' })
      // What nobody waits for any more is not computed: somebody else is next.
      for (const connection of connections) connection.destroy()
      await Promise.allSettled(statuses)
      expect((await ask('/queue', password('person', PASSWORD))).status).toBe(200)
    },
  )
})
