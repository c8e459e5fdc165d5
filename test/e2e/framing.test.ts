// What no request may look like: each form on connections of its own, whole, byte by byte, and cut in two at every
// place. It is refused, the connection ends, and the service hears nothing of it; and what must be served is, however
// it is cut.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CLASSES, SERVED } from '../support/framing-cases.mjs'
import { answers, byteByByte, faults, inTwo, whole } from '../support/framing-run.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho, startScripted } from '../support/origins.js'
import { Connection, call, type RequestParts } from '../support/raw-client.js'
import { requireGate } from '../support/requirements.js'
import { signedHeaders, TEST } from '../support/signing.js'

/** Of each class; of all forms in test/long. */
const CUT_IN_TWO = 2

let origin: Origin
/** Requests that the service had to the end. */
let complete = 0
let gateway: Gateway

beforeAll(async () => {
  origin = await startScripted({
    '/': async (exchange) => {
      const { bytes } = await exchange.body()
      complete++
      await exchange.answer(200, {}, `${exchange.method} ${bytes.toString('latin1')}`)
    },
  })
  gateway = await startGateway({
    config: {
      services: { origin: { endpoints: [origin.url] } },
      consumers: { test: { secret: TEST.secret } },
      routes: [
        { match: { path: '/' }, service: 'origin', auth: 'none' },
        { match: { path: '/signed' }, service: 'origin', auth: 'x-m' },
      ],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

describe('refused, and the service hears nothing', () => {
  test.for(CLASSES)('$name', async (one, context) => {
    if (one.gate) requireGate(context, gateway)
    expect(await faults(gateway.port, one.requests, one.status, whole)).toEqual([])
    if (!one.streams) {
      expect(await faults(gateway.port, one.requests, one.status, byteByByte)).toEqual([])
      expect(await faults(gateway.port, one.requests.slice(0, CUT_IN_TWO), one.status, inTwo)).toEqual([])
    }
    expect(origin.bytes).toBe(0)
  })
})

describe('found out while it streams', () => {
  test.for(CLASSES.filter(({ streams }) => streams))('$name: the service never has the whole', async (one, context) => {
    requireGate(context, gateway)
    expect(await faults(gateway.port, one.requests, one.status, byteByByte)).toEqual([])
    expect(await faults(gateway.port, one.requests.slice(0, CUT_IN_TWO), one.status, inTwo)).toEqual([])
    expect(complete).toBe(0)
  })
})

describe('a bad chunk is in the log', () => {
  test.for([
    ['of a body that streams', '/', {}],
    ['of one that is read whole', '/signed', signedHeaders(TEST, { method: 'POST', target: '/signed', body: 'hello' })],
  ] as const)('%s', async ([, target, headers], context) => {
    requireGate(context, gateway)
    const before = complete
    const connection = await Connection.open(gateway.port)
    const fields = Object.entries({ Host: 'a.test', 'Transfer-Encoding': 'chunked', ...headers })
    await connection.write(`POST ${target} HTTP/1.1\r\n${fields.map(([n, v]) => `${n}: ${v}\r\n`).join('')}\r\n`)
    await connection.write('5\r\nhello\r\n')
    await connection.write('0x0\r\n\r\n')
    const answer = await connection.answer()
    expect(answer.status).toBe(400)
    expect(await gateway.logged(answer)).toMatchObject({
      code: 'bad_request',
      reason: 'bad chunk',
      path: target,
      bytesIn: 5,
    })
    await connection.closedByPeer()
    expect(complete).toBe(before)
  })
})

describe('served', () => {
  test.for(SERVED)('$name', async ({ request, body = '' }, context) => {
    requireGate(context, gateway)
    const method = request.trimStart().split(' ')[0]
    const before = complete
    const ways = [...whole(request), ...byteByByte(request), ...inTwo(request)]
    for (const { statuses, text } of await answers(gateway.port, ways)) {
      expect(statuses).toBe('200')
      expect(text.slice(text.indexOf('\r\n\r\n') + 4)).toBe(`${method} ${body}`)
    }
    expect(complete - before).toBe(ways.length)
  })
})

describe('what a chunked body ends with', () => {
  test('is not the next request: trailers are left out', async (context) => {
    requireGate(context, gateway)
    const before = complete
    const connection = await Connection.open(gateway.port)
    await connection.write('POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n')
    // The trailer is what a lenient parser takes for a request, two bytes into it.
    await connection.write('a:GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n')
    expect((await connection.answer()).text).toBe('POST ')
    // The connection goes on where the trailers end.
    expect((await connection.exchange({ target: '/' })).text).toBe('GET ')
    connection.destroy()
    expect(complete - before).toBe(2)
    expect(origin.requests.all.filter(({ url }) => url !== '/')).toEqual([])
  })

  test('what follows it on the connection is served in its turn, and empty lines in a body are its own', async (context) => {
    requireGate(context, gateway)
    const connection = await Connection.open(gateway.port)
    await connection.write('POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 4\r\n\r\n\r\n\r\n')
    expect((await connection.answer()).text).toBe('POST \r\n\r\n')
    for (const body of ['', 'x', 'hello'.repeat(20_000)]) {
      const answer = await connection.exchange({ method: 'POST', target: '/', chunks: body === '' ? [] : [body, body] })
      expect(answer.text).toBe(`POST ${body}${body}`)
    }
    connection.destroy()
  })
})

describe('chunk extensions', () => {
  const chunks = (count: number, line: string) =>
    Buffer.from(`POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n${line.repeat(count)}0\r\n\r\n`)

  test('are no matter of how many chunks there are, where these carry something', async (context) => {
    requireGate(context, gateway)
    const connection = await Connection.open(gateway.port)
    await connection.write(chunks(20_000, '01;a=b\r\nx\r\n'))
    expect((await connection.answer()).text).toBe(`POST ${'x'.repeat(20_000)}`)
    connection.destroy()
  })

  test('for their own sake are refused, spread over many chunks as well', async (context) => {
    requireGate(context, gateway)
    const before = complete
    const connection = await Connection.open(gateway.port)
    await connection.write(chunks(200, `1;${'a'.repeat(100)}\r\nx\r\n`))
    expect((await connection.answer()).status).toBe(400)
    await connection.closedByPeer()
    expect(complete).toBe(before)
  })
})

describe('names with an underscore', () => {
  const headers = { X_Source: 'forged', 'X-Kept': '1' }
  let echo: Origin
  let strict: Gateway
  let lenient: Gateway
  let usual: Gateway

  beforeAll(async () => {
    echo = await startEcho()
    const config = {
      services: { echo: { endpoints: [echo.url] } },
      routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    }
    usual = await startGateway({ config, workers: 1 })
    strict = await startGateway({ config: { ...config, underscoresInHeaders: 'refuse' }, workers: 1 })
    lenient = await startGateway({ config: { ...config, underscoresInHeaders: 'allow' }, workers: 1 })
  })
  afterAll(async () => {
    for (const one of [usual, strict, lenient]) await one.close()
    await echo.close()
  })

  const names = async (at: Gateway, parts: RequestParts): Promise<string[]> => {
    const answer = await call(at.port, parts)
    expect(answer.status).toBe(200)
    return answer.json<{ rawHeaders: string[] }>().rawHeaders.filter((_, i) => i % 2 === 0)
  }

  test('are left out, unless they are allowed', async () => {
    expect(await names(usual, { headers })).not.toContain('x_source')
    expect(await names(usual, { headers: { A_: '1', _: '2', 'X-Kept': '3' } })).toContain('x-kept')
    expect(await names(lenient, { headers })).toContain('x_source')
  })

  test('or refused', async () => {
    const answer = await call(strict.port, { headers })
    expect(answer.status).toBe(400)
    expect((await strict.logged(answer)).reason).toBe('underscore in a header name')
    expect(await names(strict, { headers: { 'X-Kept': '1' } })).toContain('x-kept')
  })
})
