// A signature is accepted once: exactly one of any number of copies, whichever worker they come to, and none after a
// restart. The table's own rules are in test/unit/state/replay-table.test.ts, many processes at once in
// test/contract/shared-state.test.ts.
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, type GatewayStatus, killAll, startGateway, temporaryFolder } from '../support/gateway.js'
import { httpSignatureKeys, now, signedMessage } from '../support/http-signing.js'
import { type Origin, startEcho } from '../support/origins.js'
import { type Answer, Connection, call, type RequestParts } from '../support/raw-client.js'
import { requireProcesses, requireStateFile } from '../support/requirements.js'
import { type Caller, signedHeaders, TEST } from '../support/signing.js'

const LEGACY: Caller = { source: 'by-legacy', secret: 'the-secret-of-legacy', legacy: true }
/** Order of P-256's base point (SEC 2, 2.4.2). */
const P256_ORDER = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n

let echo: Origin
beforeAll(async () => {
  echo = await startEcho()
})
afterAll(() => echo.close())

const FAST: Caller = { source: 'fast', secret: 'the-secret-of-fast' }

function start(env: Readonly<Record<string, string>> = {}, losesWorkers = false): Promise<Gateway> {
  return startGateway({
    env,
    losesWorkers,
    config: {
      consumers: {
        test: { secret: TEST.secret, httpSignatureKeys: httpSignatureKeys('test-key-ed25519', 'test-key-ecc-p256') },
        'by-legacy': { secret: LEGACY.secret, signs: 'legacy' },
        fast: { secret: FAST.secret },
      },
      services: { echo: { endpoints: [echo.url] } },
      replay: 'once',
      routes: [
        { match: { path: '/' }, service: 'echo', auth: ['x-m', 'http-signature'], accessLog: false },
        { match: { path: '/logged' }, service: 'echo', auth: 'x-m' },
        { match: { path: '/unsigned-body' }, service: 'echo', auth: 'x-m', signBody: false },
        { match: { path: '/forbidden' }, service: 'echo', auth: 'x-m', allow: ['by-legacy'] },
        { match: { path: '/again' }, service: 'echo', auth: 'x-m', replay: 'allow' },
        {
          match: { path: '/limited' },
          service: 'echo',
          auth: 'x-m',
          limits: [{ by: 'consumer', rate: '1/h', burst: 5 }],
          accessLog: false,
        },
        { match: { path: '/open' }, service: 'echo', auth: 'none' },
      ],
    },
  })
}

const xm = (target: string, caller = TEST, time = now()): RequestParts => ({
  target,
  headers: signedHeaders(caller, { target, time }),
})

/** As many connections as it takes until every worker has some. */
async function connectionsToAll(gateway: Gateway, least: number): Promise<Connection[]> {
  const connections: Connection[] = []
  for (;;) {
    connections.push(await Connection.open(gateway.port))
    const last = connections.at(-1) as Connection
    await last.exchange({ target: '/open' })
    if (connections.length < least) continue
    const { workers } = await gateway.status<GatewayStatus>()
    if (workers.every((worker) => worker.connections > 0)) return connections
  }
}

describe('while it runs', () => {
  let gateway: Gateway
  beforeAll(async () => {
    gateway = await start()
  })
  afterAll(() => gateway.close())

  const statusOf = async (request: RequestParts): Promise<number> => (await call(gateway.port, request)).status
  const replays = async (): Promise<number> => (await gateway.metric('tidegate_replays_total')) as number

  test('exactly one of many copies at once gets through, over all workers', async () => {
    const connections = await connectionsToAll(gateway, 16)
    const before = await replays()
    const asked = echo.requests.all.length
    const rounds = 40
    for (let round = 0; round < rounds; round++) {
      const target = `/copies/${round}`
      const request = round % 2 === 0 ? xm(target) : signedMessage({ target })
      const answers = await Promise.all(connections.map((connection) => connection.exchange(request)))
      const statuses = answers.map(({ status }) => status).sort()
      expect(statuses).toEqual([200, ...Array.from({ length: connections.length - 1 }, () => 401)])
    }
    expect(echo.requests.all.length - asked).toBe(rounds)
    expect((await replays()) - before).toBe(rounds * (connections.length - 1))
    for (const connection of connections) connection.destroy()
  })

  test('a repeat is 401, and says why in the log alone', async () => {
    const request = xm('/logged/1')
    expect(await statusOf(request)).toBe(200)
    const answer = await call(gateway.port, request)
    expect(answer.json()).toMatchObject({ status: 401, code: 'unauthorized' })
    expect(answer.text).not.toContain('replay')
    expect(await gateway.logged(answer)).toMatchObject({ reason: 'replayed', consumer: 'test' })
  })

  test('what is not signed makes no other signature of it', async () => {
    const target = '/unsigned-body/1'
    const headers = signedHeaders(TEST, { method: 'POST', target, withoutBody: true })
    expect(await statusOf({ method: 'POST', target, headers, body: 'one' })).toBe(200)
    expect(await statusOf({ method: 'POST', target, headers, body: 'two' })).toBe(401)
    expect(await statusOf({ method: 'POST', target, headers: { ...headers, 'x-other': '1' }, body: 'one' })).toBe(401)
  })

  test('what is signed does: path, time, nonce', async () => {
    const time = now()
    expect(await statusOf(xm('/other/1', TEST, time))).toBe(200)
    expect(await statusOf(xm('/other/2', TEST, time))).toBe(200)
    expect(await statusOf(xm('/other/1', TEST, time - 1))).toBe(200)
    const created = { parameters: `;created=${time};keyid="test-key-ed25519"` }
    expect(await statusOf(signedMessage({ target: '/other/1' }, { ...created, more: ';nonce="1"' }))).toBe(200)
    expect(await statusOf(signedMessage({ target: '/other/1' }, { ...created, more: ';nonce="2"' }))).toBe(200)
    expect(await statusOf(signedMessage({ target: '/other/1' }, { ...created, more: ';nonce="2"' }))).toBe(401)
  })

  test('a copy of an ECDSA signature in other digits is a copy', async () => {
    const request = signedMessage({ target: '/ecdsa' }, { keyid: 'test-key-ecc-p256' })
    const { signature = '' } = request.headers as Record<string, string>
    const bytes = Buffer.from(signature.slice('sig1=:'.length, -1), 'base64')
    // Whoever sees (r, s) has (r, n − s), which verifies as well.
    const s = P256_ORDER - BigInt(`0x${bytes.toString('hex', 32)}`)
    const other = Buffer.concat([bytes.subarray(0, 32), Buffer.from(s.toString(16).padStart(64, '0'), 'hex')])
    const copy = { ...request, headers: { ...request.headers, signature: `sig1=:${other.toString('base64')}:` } }
    expect(await statusOf(copy)).toBe(200)
    expect(await statusOf(request)).toBe(401)
    expect(await statusOf(copy)).toBe(401)
  })

  test('a label, a second signature or blanks make no other signature of it', async () => {
    const request = signedMessage({ target: '/relabelled' })
    const headers = request.headers as Record<'signature' | 'signature-input', string>
    expect(await statusOf(request)).toBe(200)
    const relabelled = {
      'signature-input': headers['signature-input'].replace('sig1=', 'x=1, sig2=').replace('" "', '"  "'),
      signature: headers.signature.replace('sig1=', 'sig2='),
    }
    expect(await statusOf({ ...request, headers: relabelled })).toBe(401)
  })

  test('one that is refused is not used up, nor is one that is forged', async () => {
    const request = xm('/forbidden')
    expect([await statusOf(request), await statusOf(request)]).toEqual([403, 403])
    const mine = xm('/logged/2')
    const { 'x-time': time, 'x-m': mac } = mine.headers as Record<string, string>
    expect(await statusOf({ ...mine, headers: { ...mine.headers, 'x-time': String(Number(time) - 1) } })).toBe(401)
    expect(await statusOf({ ...mine, headers: { ...mine.headers, 'x-m': (mac as string).toUpperCase() } })).toBe(401)
    expect(await statusOf(mine)).toBe(200)
  })

  test('who signs source and time alone has one request for each second', async () => {
    const time = now()
    expect(await statusOf(xm('/legacy/1', LEGACY, time))).toBe(200)
    expect(await statusOf(xm('/legacy/2', LEGACY, time))).toBe(401)
    expect(await statusOf(xm('/legacy/2', LEGACY, time - 1))).toBe(200)
  })

  test('a copy is charged to no limit, and what a limit refuses takes no room', async () => {
    const remembered = async (): Promise<number> => (await gateway.metric('tidegate_replay_table_live')) as number
    const before = await remembered()
    const request = xm('/limited/1')
    expect(await statusOf(request)).toBe(200)
    for (let i = 0; i < 20; i++) expect(await statusOf(request)).toBe(401)
    for (let i = 0; i < 4; i++) expect(await statusOf(xm(`/limited/more/${i}`))).toBe(200)
    for (let i = 0; i < 50; i++) expect(await statusOf(xm(`/limited/over/${i}`))).toBe(429)
    expect((await remembered()) - before).toBe(5)
  })

  test('one that is dated ahead is good for no longer than half a minute more', async () => {
    expect(await statusOf(xm('/ahead/1', TEST, now() + 25))).toBe(200)
    expect(await statusOf(xm('/ahead/2', TEST, now() + 40))).toBe(401)
    expect(await statusOf(xm('/again', TEST, now() + 250))).toBe(200)
  })

  test('a route may let copies through', async () => {
    const request = xm('/again')
    expect([await statusOf(request), await statusOf(request)]).toEqual([200, 200])
  })
})

describe.each([
  { how: 'kill -9 of all its processes', end: killAll },
  { how: 'SIGTERM', end: (gateway: Gateway) => gateway.close() },
])('after $how', ({ end }) => {
  test('nothing is forgotten', async (context) => {
    const env = { TIDEGATE_STATE: join(temporaryFolder(), 'gateway.state') }
    const requests = Array.from({ length: 20 }, (_, i) =>
      i % 2 === 0 ? xm(`/lasting/${i}`) : signedMessage({ target: `/lasting/${i}` }),
    )
    const send = (gateway: Gateway): Promise<Answer[]> =>
      Promise.all(requests.map((request) => call(gateway.port, request)))
    const before = await start(env)
    await requireStateFile(context, before)
    expect(new Set((await send(before)).map(({ status }) => status))).toEqual(new Set([200]))
    await end(before)

    const gateway = await start({ ...env, TIDEGATE_REPLAY_KEYS: '5000' })
    try {
      expect(new Set((await send(gateway)).map(({ status }) => status))).toEqual(new Set([401]))
      const notice = gateway.log.all.find((line) => line.msg === 'starting')?.state
      expect(notice).toMatch(/20 signatures; tables resized$/)
    } finally {
      await gateway.close()
    }
  })
})

test('what a worker accepted is remembered when it is dead', async (context) => {
  const gateway = await start({}, true)
  try {
    requireProcesses(context, gateway)
    const requests = Array.from({ length: 20 }, (_, i) => xm(`/mortal/${i}`))
    const statuses = async (): Promise<Set<number>> =>
      new Set((await Promise.all(requests.map((request) => call(gateway.port, request)))).map(({ status }) => status))
    expect(await statuses()).toEqual(new Set([200]))
    for (const { pid } of (await gateway.status<GatewayStatus>()).workers) process.kill(pid, 'SIGKILL')
    // Two at the start, two in their places.
    await gateway.log.take(4, (line) => line.msg === 'worker listens', 'both again')
    expect(await statuses()).toEqual(new Set([401]))
  } finally {
    await gateway.close()
  }
})

test('where no signature more of a caller can be remembered, none is accepted', async () => {
  const gateway = await start({ TIDEGATE_REPLAY_KEYS: '1024' })
  try {
    const connection = await Connection.open(gateway.port)
    const passed: RequestParts[] = []
    let refused: Answer | null = null
    // More than there are slots.
    for (let i = 0; i < 4000; i++) {
      const request = xm(`/many/${i}`)
      const answer = await connection.exchange(request)
      if (answer.status === 200) passed.push(request)
      else refused = answer
    }
    connection.destroy()
    expect(refused?.json()).toMatchObject({ status: 503, code: 'overloaded' })
    // It was one caller: others have theirs.
    const statuses = await Promise.all(
      Array.from({ length: 100 }, async (_, i) => (await call(gateway.port, xm(`/fast/${i}`, FAST))).status),
    )
    expect(statuses.filter((status) => status === 200).length).toBeGreaterThan(98)
    expect(refused?.one('retry-after')).toBe('1')
    expect(await gateway.metric('tidegate_replay_table_full_total')).toBeGreaterThan(0)
    // What was accepted is remembered.
    expect((await call(gateway.port, passed[0] as RequestParts)).status).toBe(401)
  } finally {
    await gateway.close()
  }
})
