// Request bodies without a socket: read whole, and streamed with what is read ahead of them.
import type { Readable } from 'node:stream'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Route } from '../../../src/config/compile.js'
import { type BodyRules, CLIENT_SILENCE_MS } from '../../../src/downstream/body.js'
import { BodyMemory } from '../../../src/downstream/body-memory.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { ClientUpload } from '../../../src/downstream/upload.js'
import { WholeBody } from '../../../src/downstream/whole-body.js'
import { Deadlines } from '../../../src/exchange/deadlines.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import type { Rejection } from '../../../src/exchange/outcome.js'

let nowUs = 0
let deadlines: Deadlines
let rules: BodyRules
let client: MemoryDownstream
let exchange: Exchange
let crashes: unknown[]

beforeEach(() => {
  nowUs = 0
  crashes = []
  deadlines = new Deadlines(() => nowUs)
  const memory = new BodyMemory(1 << 20, (address) => address)
  rules = { deadlines, nowUs: () => nowUs, minBytesPerSecond: 1000, memory }
  client = new MemoryDownstream('POST')
  exchange = new Exchange(client, 0, 'POST', '/', undefined, Fields.of([]))
  exchange.route = { maxBodyBytes: 500_000 } as Route
  exchange.contentLength = -1
  exchange.ends = { crash: (_, error) => crashes.push(error), clientLeft: () => exchange.holder?.abandon() }
  client.owner = exchange
  client.watch()
})

afterEach(() => deadlines.close())

describe('a body that is read whole', () => {
  let done: (Rejection | null)[]

  function read(): WholeBody {
    done = []
    return new WholeBody(exchange, rules, (_, rejection) => done.push(rejection))
  }

  /** Nothing waits for it any more. */
  function expectGivenBack(): void {
    expect([deadlines.size, exchange.holder]).toEqual([0, null])
  }

  test('is there when its last part is', () => {
    const body = read()
    expect(exchange.holder).toBe(body)
    client.send('hello ', false)
    client.send('world', true)
    expect([done, exchange.body?.toString(), exchange.bytesIn]).toEqual([[null], 'hello world', 11])
    expectGivenBack()
  })

  test.each<[string, () => void, string]>([
    ['over the limit', () => client.send(Buffer.alloc(500_001), false), 'body_too_large'],
    ['over what one client may hold', () => client.send(Buffer.alloc(300_000), false), 'body_too_large'],
    ['malformed', () => client.sendMalformed(), 'bad_request'],
  ])('is refused: %s', (_, send, code) => {
    read()
    send()
    expect(done.map((rejection) => rejection?.code)).toEqual([code])
    expectGivenBack()
    client.send('more', true)
    expect(done).toHaveLength(1)
  })

  test('is refused before a byte where it can never be held', () => {
    exchange.contentLength = 400_000
    read()
    expect(done[0]?.code).toBe('body_too_large')
  })

  test('is refused while others hold all the memory', () => {
    const memory = new BodyMemory(4000, (address) => address)
    for (const address of ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4']) {
      memory.hold({ clientAddress: address, heldBytes: 0 } as Exchange, 990)
    }
    rules = { ...rules, memory }
    read()
    client.send(Buffer.alloc(900), false)
    expect(done[0]?.code).toBe('overloaded')
  })

  test('is refused when it comes too slowly, or not at all', () => {
    read()
    nowUs = 20e6
    client.send('x', false)
    expect(done[0]?.code).toBe('request_timeout')
    const silent = read()
    expect(silent.deadlineUs).toBe(CLIENT_SILENCE_MS * 1000)
    silent.expire()
    expect(done[0]?.code).toBe('request_timeout')
    expectGivenBack()
  })

  test('renews the client’s timeout once a second', () => {
    read()
    for (nowUs = 0; nowUs < 3e6; nowUs += 1e5) client.send(Buffer.alloc(100), false)
    expect(client.renewals).toBe(2)
  })

  test('is never done where the client leaves', () => {
    read()
    client.send('some', false)
    client.leave()
    expect(done).toEqual([])
    expectGivenBack()
  })

  test('an exception behind it is the exchange’s', () => {
    new WholeBody(exchange, rules, () => {
      throw new Error('expected of this test')
    })
    client.send('x', true)
    expect(crashes).toHaveLength(1)
  })
})

describe('a body that is streamed', () => {
  let upload: ClientUpload
  let refused: Rejection[]
  let progress: number

  beforeEach(() => {
    refused = []
    progress = 0
    upload = new ClientUpload(exchange, rules)
    upload.listen({ onRefused: (rejection) => refused.push(rejection), onProgress: () => progress++ })
  })

  test('is handed over in one piece where it is complete', () => {
    client.send('hello ', false)
    expect([upload.isComing, upload.isReadAhead]).toEqual([true, false])
    client.send('world', true)
    expect([upload.isComing, upload.isReadAhead, upload.taken, progress]).toEqual([false, true, false, 2])
    expect(upload.open().toString()).toBe('hello world')
    // Of the next attempt as well.
    expect(upload.open().toString()).toBe('hello world')
  })

  test('holds its client back when enough is read ahead, and lets it go on when that is taken', async () => {
    client.send(Buffer.alloc(65_536), false)
    expect([client.bodyPaused, upload.paused, upload.isReadAhead, exchange.heldBytes]).toEqual([
      true,
      true,
      true,
      65_536,
    ])
    const stream = upload.open() as Readable
    const chunks: Buffer[] = []
    stream.on('data', (chunk) => chunks.push(chunk))
    await expect.poll(() => chunks.length).toBe(1)
    expect([client.bodyPaused, upload.taken, exchange.heldBytes]).toEqual([false, true, 0])
    client.send('the end', true)
    await new Promise((resolve) => stream.once('end', resolve))
    expect(Buffer.concat(chunks).length).toBe(65_543)
  })

  test('that nobody wants any more holds nobody back, and nothing', () => {
    client.send(Buffer.alloc(70_000), false)
    upload.drop()
    expect([client.bodyPaused, exchange.heldBytes, upload.isComing]).toEqual([false, 0, false])
    client.send('more', true)
    expect(exchange.heldBytes).toBe(0)
  })

  test('that is cut short does not look complete', async () => {
    const stream = upload.open() as Readable
    let ended = false
    stream.on('end', () => {
      ended = true
    })
    client.send('some', false)
    upload.cutShort(new Error('expected of this test'))
    await new Promise((resolve) => stream.once('close', resolve))
    expect([ended, stream.errored?.message]).toEqual([false, 'expected of this test'])
  })

  test.each<[string, () => void, string]>([
    ['over the limit', () => client.send(Buffer.alloc(500_001), false), 'body_too_large'],
    ['malformed', () => client.sendMalformed(), 'bad_request'],
    [
      'too slow',
      () => {
        nowUs = 20e6
        client.send('x', false)
      },
      'request_timeout',
    ],
  ])('is refused: %s', (_, send, code) => {
    send()
    expect(refused.map((rejection) => rejection.code)).toEqual([code])
    // Whoever begins to listen is told as well.
    upload.listen({ onRefused: (rejection) => refused.push(rejection), onProgress() {} })
    expect(refused).toHaveLength(2)
  })

  test('is not too slow for the time that its client was held back', async () => {
    client.send(Buffer.alloc(65_536), false)
    nowUs = 100e6
    const stream = upload.open() as Readable
    await new Promise((resolve) => stream.once('data', resolve))
    nowUs = 102e6
    client.send('x', false)
    expect(refused).toEqual([])
    nowUs = 200e6
    client.send('x', false)
    expect(refused[0]?.code).toBe('request_timeout')
  })
})
