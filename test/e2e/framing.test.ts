// What no request may look like: each form on connections of its own, whole, byte by byte, and cut in two at every place. It is refused,
// the connection ends, and the service hears nothing of it; and what must be served is, however it is cut.
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { CLASSES, SERVED } from '../support/framing-cases.mjs'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho, startScripted } from '../support/origins.js'
import { Connection, call, type RequestParts } from '../support/raw-client.js'
import { requireGate } from '../support/requirements.js'

/** Cut at every place; longer ones only byte by byte. */
const SHORT_BYTES = 90
const BYTEWISE_BYTES = 1500
const AT_ONCE = 64
const SILENCE_MS = 5_000

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
      routes: [{ match: { path: '/' }, service: 'origin', auth: 'none' }],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

interface Ending {
  readonly statuses: string
  readonly text: string
  readonly closed: boolean
}

/** Sends the parts, each by itself, until an answer comes; ends when the gateway has closed the connection, or says nothing any more. */
function attempt(parts: readonly Buffer[]): Promise<Ending> {
  return new Promise((resolve) => {
    let text = ''
    const socket = connect({ port: gateway.port, host: '127.0.0.1', noDelay: true }).setEncoding('latin1')
    const end = (closed: boolean) => {
      clearTimeout(silence)
      socket.destroy()
      const statuses = [...text.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(([, status]) => status).join()
      resolve({ statuses, text, closed })
    }
    const silence = setTimeout(() => end(false), SILENCE_MS)
    socket.on('data', (data) => {
      text += data
      if (/^HTTP\/1\.1 200/.test(text) && /\r\n\r\n\S+ /.test(text)) end(false)
    })
    // What is still on its way when the gateway closes resets the connection, and may take the answer with it.
    socket.on('error', () => {})
    socket.on('close', () => end(true))
    socket.on('connect', async () => {
      for (const [index, part] of parts.entries()) {
        if (index > 0) await delay(parts.length === 2 ? 1 : 0)
        if (text !== '' || socket.destroyed) return
        socket.write(part)
      }
    })
  })
}

async function all<T>(jobs: readonly (() => Promise<T>)[]): Promise<T[]> {
  const results: T[] = []
  const queue = jobs.entries()
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const [index, job] of queue) results[index] = await job()
    }),
  )
  return results
}

const bytesOf = (request: string): Buffer => Buffer.from(request, 'latin1')
const whole = (request: string): Buffer[][] => [[bytesOf(request)]]

function cut(request: string): Buffer[][] {
  const bytes = bytesOf(request)
  const ways: Buffer[][] = []
  if (bytes.length <= BYTEWISE_BYTES) ways.push(Array.from(bytes, (_, i) => bytes.subarray(i, i + 1)))
  for (let at = 1; bytes.length <= SHORT_BYTES && at < bytes.length; at++) {
    ways.push([bytes.subarray(0, at), bytes.subarray(at)])
  }
  return ways
}

/** What is wrong with how these ended, in words; nothing, if all is as it must be. */
async function faults(
  requests: readonly string[],
  statuses: readonly number[],
  ways: (request: string) => Buffer[][],
): Promise<string[]> {
  const jobs = requests.flatMap((request) => ways(request).map((parts) => ({ request, parts })))
  const endings = await all(
    jobs.map(
      ({ parts }) =>
        () =>
          attempt(parts),
    ),
  )
  return endings.flatMap((ending, index) => {
    const { request, parts } = jobs[index]!
    const refused = statuses.map(String).includes(ending.statuses) || (ending.statuses === '' && parts.length > 1)
    if (refused && ending.closed) return []
    const how = parts.length === 1 ? 'whole' : `in ${parts.map((part) => part.length).join(' + ')}`.slice(0, 40)
    return [
      `${JSON.stringify(request.slice(0, 200))} ${how}: ${ending.statuses || 'nothing'}${ending.closed ? '' : ', open'}`,
    ]
  })
}

describe('refused, and the service hears nothing', () => {
  test.each(CLASSES)('$name', async (one, context) => {
    if (one.gate) requireGate(context, gateway)
    expect(await faults(one.requests, one.status, whole)).toEqual([])
    if (!one.streams) expect(await faults(one.requests, one.status, cut)).toEqual([])
    expect(origin.bytes).toBe(0)
  })
})

describe('found out while it streams', () => {
  test.each(CLASSES.filter(({ streams }) => streams))(
    '$name: the service never has the whole',
    async (one, context) => {
      requireGate(context, gateway)
      expect(await faults(one.requests, one.status, cut)).toEqual([])
      expect(complete).toBe(0)
    },
  )
})

describe('served', () => {
  test.each(SERVED)('$name', async ({ request, body = '' }, context) => {
    requireGate(context, gateway)
    const method = request.trimStart().split(' ')[0]
    const before = complete
    const ways = [...whole(request), ...cut(request)]
    for (const { statuses, text } of await all(ways.map((parts) => () => attempt(parts)))) {
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
