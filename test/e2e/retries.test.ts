// What is sent again, where, and how often. Two endpoints of each service are real servers with one memory: whichever
// of them is asked first about an id does what the path says, and the second attempt at it gets a good response.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Script, sha256 } from '../support/origins.js'
import { type Answer, Connection, call, type RequestParts } from '../support/raw-client.js'
import { after, type Firstly, type Replicas, silent, startReplicas } from '../support/replicas.js'
import { eventually } from '../support/waiting.js'

const CLIENTS = ['lean', 'undici'] as const
const LONG = 'x'.repeat(1 << 20)
/** Services whose endpoints all respond 503. */
const down = new Set<string>()

const busy: Script = (exchange) => exchange.answer(503, {}, 'first')
const badGateway: Script = (exchange) => exchange.answer(502, {}, 'first')
/** Unless its service is down. */
const unlessDown =
  (script: Script): Script =>
  (exchange) =>
    down.has(exchange.query.get('service')!) ? exchange.answer(503, {}, 'down') : script(exchange)

const scripts: Firstly = {
  '/status': busy,
  '/not-implemented': (exchange) => exchange.answer(501, {}, 'first'),
  '/no-content': [badGateway, (exchange) => exchange.send('HTTP/1.1 204 No Content\r\n\r\n')],
  '/not-modified': [badGateway, (exchange) => exchange.send('HTTP/1.1 304 Not Modified\r\nEtag: "x"\r\n\r\n')],
  '/both': [busy, (exchange) => exchange.answer(500, {}, 'second')],
  '/long': (exchange) => exchange.answer(503, {}, LONG),
  '/trickle': async (exchange) => {
    await exchange.send('HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n')
    await exchange.chunk('some')
    await exchange.closed()
  },
  '/reset': (exchange) => exchange.reset(),
  '/garbage': (exchange) => exchange.send('220 smtp.test ESMTP\r\n'),
  '/half': async (exchange) => {
    await exchange.send('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf')
    exchange.reset()
  },
  '/silent': silent,
  '/late': [silent, after(400, (exchange) => exchange.answer(200, {}, 'second'))],
  '/mute': [silent, silent],
  '/down': [unlessDown(busy), unlessDown((exchange) => exchange.answer(200, {}, 'second'))],
}

let replicas: Replicas
let gateway: Gateway
let ids = 0

beforeAll(async () => {
  replicas = await startReplicas(2, scripts)
  const endpoints = replicas.origins.map(({ url }) => url)
  const of = (more: object) => Object.fromEntries(CLIENTS.map((client) => [client, { endpoints, client, ...more }]))
  const named = (name: string, more: object) =>
    Object.fromEntries(Object.entries(of(more)).map(([client, service]) => [`${name}-${client}`, service]))
  const services: Record<string, object> = {
    ...named('plain', { retries: { budget: 1 } }),
    // Nothing else is asked of these two: a connection that was used before would be replaced within the attempt.
    ...named('fresh', {}),
    ...named('clean', {}),
    ...named('hasty', { timeouts: { firstByte: '300ms' } }),
    ...named('per-try', { retries: { perTry: '100ms' }, timeouts: { firstByte: '10s' } }),
    ...named('total', { retries: { perTry: '100ms' }, timeouts: { total: '300ms' } }),
    thrice: { endpoints, retries: { attempts: 3, backoff: '10s' } },
    once: { endpoints, retries: false },
    only: { endpoints: endpoints.slice(0, 1) },
    short: { endpoints, retries: { budget: 0.01 } },
    flooded: { endpoints },
    refused: { endpoints, retries: { on: ['connect', 501] } },
    breaks: {
      endpoints,
      breaker: { window: '60s', minRequests: 4, openFor: '200ms', maxOpenFor: '200ms', probes: 1, ramp: '0s' },
    },
  }
  const routes = Object.keys(services).map((service) => ({
    match: { path: `/${service}` },
    service,
    auth: 'none',
    stripPrefix: true,
  }))
  gateway = await startGateway({ workers: 1, config: { services, routes } })
})

afterAll(async () => {
  await gateway.close()
  await replicas.close()
})

interface Asked {
  readonly answer: Answer
  /** What the endpoints have seen of it. */
  readonly seen: readonly { readonly port: number; readonly body: string }[]
}

async function ask(service: string, path: string, parts: RequestParts = {}): Promise<Asked> {
  const target = `${path}?service=${service}&id=${ids++}`
  const answer = await call(gateway.port, { ...parts, target: `/${service}${target}` })
  return { answer, seen: replicas.seen.get(target) ?? [] }
}

/** What the access lines are to say; they come a moment later. */
const expectedLines: { readonly answer: Answer; readonly attempts: number; readonly retried: string | undefined }[] = []

/** It was asked of both endpoints, and the second response has come through. */
function expectSecond({ answer, seen }: Asked, retried: string): void {
  expect([answer.status, answer.text]).toEqual([200, 'second'])
  expect(new Set(seen.map(({ port }) => port)).size).toBe(2)
  expectedLines.push({ answer, attempts: 2, retried })
}

/** It was asked of one endpoint. */
function expectOnce({ answer, seen }: Asked, status: number): void {
  expect([answer.status, seen.length]).toEqual([status, 1])
  expectedLines.push({ answer, attempts: 1, retried: undefined })
}

describe.each(CLIENTS)('with %s', (client) => {
  test.each([
    ['status', '/status', 'status'],
    ['response that is not HTTP', '/garbage', 'reset'],
    ['response whose body is long', '/long', 'status'],
    ['response whose body does not end', '/trickle', 'status'],
  ])('another endpoint is asked after a %s', async (_, path, reason) => {
    // Whichever endpoint is first.
    const all = await Promise.all([1, 2, 3].map(() => ask(`plain-${client}`, path)))
    for (const one of all) expectSecond(one, reason)
  })

  test('another endpoint is asked after a reset of a fresh connection', async () => {
    expectSecond(await ask(`fresh-${client}`, '/reset'), 'reset')
  })

  test('another endpoint is asked when the response has not begun in time', async () => {
    expectSecond(await ask(`hasty-${client}`, '/silent'), 'timeout')
  })

  test('if both are silent, the client hears of the second', async () => {
    const { answer, seen } = await ask(`hasty-${client}`, '/mute')
    expect([answer.status, answer.json<{ code: string }>().code]).toEqual([504, 'upstream_timeout'])
    expect(seen.length).toBe(2)
  })

  test('perTry bounds all attempts but the last', async () => {
    expectSecond(await ask(`per-try-${client}`, '/late'), 'timeout')
  })

  test('total bounds all attempts together', async () => {
    const { answer, seen } = await ask(`total-${client}`, '/late')
    expect([answer.status, seen.length]).toEqual([504, 2])
  })

  test('the second response passes as it is, whatever it is', async () => {
    const head = await ask(`plain-${client}`, '/status', { method: 'HEAD' })
    expect([head.answer.status, head.answer.one('content-length'), head.seen.length]).toEqual([200, '6', 2])
    const empty = await ask(`plain-${client}`, '/no-content')
    expect([empty.answer.status, empty.seen.length]).toEqual([204, 2])
    const same = await ask(`plain-${client}`, '/not-modified')
    expect([same.answer.status, same.answer.one('etag'), same.seen.length]).toEqual([304, '"x"', 2])
    const bad = await ask(`plain-${client}`, '/both')
    expect([bad.answer.status, bad.answer.text, bad.seen.length]).toEqual([500, 'second', 2])
  })

  test('a body that is here as a whole is sent again', async () => {
    for (const [method, path, service] of [
      ['PUT', '/status', 'plain'],
      ['DELETE', '/reset', 'clean'],
    ] as const) {
      const body = Buffer.alloc(20_000, method)
      const asked = await ask(`${service}-${client}`, path, { method, body })
      expectSecond(asked, path.slice(1))
      expect(asked.seen.map((one) => one.body)).toEqual([sha256(body), sha256(body)])
    }
  })

  test('a body over maxBody is not', async () => {
    const asked = await ask(`plain-${client}`, '/status', { method: 'PUT', body: Buffer.alloc(70_000) })
    expectOnce(asked, 503)
    expect(asked.answer.text).toBe('first')
  })

  test('a POST that was sent is not', async () => {
    const post = { method: 'POST', body: 'x' }
    expectOnce(await ask(`plain-${client}`, '/status', post), 503)
    expectOnce(await ask(`plain-${client}`, '/reset', post), 502)
    expectOnce(await ask(`hasty-${client}`, '/silent', post), 504)
  })

  test('a request whose response has begun is not', async () => {
    const target = `/half?id=${ids++}`
    const connection = await Connection.open(gateway.port)
    await connection.send({ target: `/plain-${client}${target}` })
    expect((await connection.head()).status).toBe(200)
    await connection.reader.some()
    await connection.closedByPeer()
    expect(replicas.seen.get(target)!.length).toBe(1)
  })

  test('a response that is not wanted leaves its connection usable if it is short, and closes it if not', async () => {
    const connections = () => replicas.origins.reduce((sum, origin) => sum + origin.connections, 0)
    const unwanted = async (): Promise<void> => {
      for (let i = 0; i < 4; i++) await call(gateway.port, { target: `/plain-${client}/status?id=${ids++}` })
    }
    await unwanted()
    const before = connections()
    await unwanted()
    expect(connections()).toBe(before)
    for (const path of ['/long', '/trickle']) {
      const target = `${path}?id=${ids++}`
      expect((await call(gateway.port, { target: `/plain-${client}${target}` })).text).toBe('second')
      await replicas.exchanges.get(target)![0]!.closed()
    }
  })
})

test('one endpoint is not asked again because of a status', async () => {
  expectOnce(await ask('only', '/status'), 503)
})

test('retries: false', async () => {
  expectOnce(await ask('once', '/status'), 503)
  expectOnce(await ask('once', '/garbage'), 502)
})

test('only what is named is retried', async () => {
  expectSecond(await ask('refused', '/not-implemented'), 'status')
  expectOnce(await ask('refused', '/status'), 503)
  expectOnce(await ask('refused', '/garbage'), 502)
})

test('the budget bounds them, and the metrics say so', async () => {
  const statuses: number[] = []
  for (let i = 0; i < 40; i++) {
    statuses.push((await call(gateway.port, { target: `/short/status?id=${ids++}` })).status)
  }
  const good = statuses.filter((status) => status === 200).length
  // Ten at first, and one more each second.
  expect(good).toBeGreaterThanOrEqual(10)
  expect(good).toBeLessThan(40)
  expect(statuses.slice(0, 10)).toEqual(Array(10).fill(200))
  expect(await gateway.metric('tidegate_retries_total{route="/short",reason="status"}')).toBe(good)
  expect(await gateway.metric('tidegate_retries_refused_total{route="/short"}')).toBe(40 - good)
})

test('requests that are not forwarded do not pay for the retries of others', async () => {
  const ask = (headers: Readonly<Record<string, string>>) =>
    call(gateway.port, { target: `/flooded/status?id=${ids++}`, headers })
  for (let i = 0; i < 10; i++) {
    const late = await Promise.all(Array.from({ length: 30 }, () => ask({ 'x-timeout-ms': '0' })))
    expect(new Set(late.map(({ status }) => status))).toEqual(new Set([504]))
  }
  const good = await Promise.all(Array.from({ length: 60 }, () => ask({})))
  // Ten at first, twelve for these sixty, and one more each second.
  expect(good.filter(({ status }) => status === 200).length).toBeLessThan(50)
})

test('a client that leaves between two attempts ends it', async () => {
  const target = `/both?id=${ids++}`
  const connection = await Connection.open(gateway.port)
  await connection.send({ target: `/thrice${target}` })
  // Two attempts at once; the third waits for up to 20 s.
  await eventually('two attempts', () => replicas.seen.get(target)?.length, 2)
  connection.destroy()
  const line = await gateway.access.find((one) => one.route === '/thrice' && one.status === 499, 'the request')
  expect([line.code, line.attempts]).toEqual(['client_closed', 2])
})

describe('the breaker', () => {
  const state = async (): Promise<string> => {
    const { breakers } = await gateway.status<{ breakers: { service: string; state: string }[] }>()
    return breakers.find(({ service }) => service === 'breaks')!.state
  }

  test('stays closed while one attempt in two fails, and opens when all do', async () => {
    for (const one of await Promise.all(Array.from({ length: 8 }, () => ask('breaks', '/down')))) {
      expectSecond(one, 'status')
    }
    expect(await state()).toBe('closed')
    down.add('breaks')
    // Half of all calls are failures then.
    for (let i = 0; i < 8; i++) {
      expect((await call(gateway.port, { target: `/breaks/down?service=breaks&id=${ids++}` })).status).toBe(503)
    }
    expect(await state()).toBe('open')
  })

  test('a probe that is retried passes, and its permit comes back', async () => {
    down.delete('breaks')
    await eventually('a good response', async () => (await ask('breaks', '/down')).answer.status, 200)
    expect(await state()).toBe('closed')
  })
})

test('the access lines say how many attempts a request had, and why', async () => {
  expect(expectedLines.length).toBeGreaterThan(0)
  for (const { answer, attempts, retried } of expectedLines) {
    const line = await gateway.logged(answer)
    expect([line.attempts, line.retried]).toEqual([attempts, retried])
  }
})
