import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync, statSync } from 'node:fs'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import fc from 'fast-check'
import { afterAll, describe, expect, it } from 'vitest'
import type { Consumer, Endpoint, Route, Service } from '../../../src/config/compile.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import { type AccessLog, createAccessLog, jsonText } from '../../../src/telemetry/access-log.js'
import type { LineWriterOptions } from '../../../src/telemetry/line-writer.js'

const folder = mkdtempSync(join(tmpdir(), 'tidegate-access-log-'))
afterAll(() => rmSync(folder, { recursive: true }))
let files = 0
const fresh = (): string => join(folder, `log-${files++}`)

const PIPE_BUF = 4096
const START_US = 1_700_000_000_000_000

const servedBy = (name: string) => ({ kind: 'proxy', service: { name } as Service })
const route = { name: 'hello', index: 0, handler: servedBy('demo'), logQuery: false, accessLog: true } as Route
const endpoint = { origin: 'http://127.0.0.1:9000', index: 0 } as Endpoint
const consumer = { name: 'test', secrets: ['s3cret'] } as unknown as Consumer

function exchange(fields: Partial<Exchange> = {}, path = '/hello', query = '', method = 'GET'): Exchange {
  const headers = ['x-m', 'fa11ed', 'authorization', 'Bearer s3cret']
  const rid = '0123456789abcdef0123456789abcdef'
  return Object.assign(
    new Exchange(new MemoryDownstream(), START_US, method, path, query, Fields.of(headers)),
    { rid, status: 200, service: fields.route?.handler.service ?? null },
    fields,
  )
}

function open(target: string, options?: LineWriterOptions): AccessLog {
  const log = createAccessLog(target, options)
  if (log === null) throw new Error('expected a log')
  return log
}

const closed = (log: AccessLog): Promise<void> => new Promise((resolve) => log.close(resolve))
const flushed = (log: AccessLog): Promise<void> => new Promise((resolve) => log.flush(resolve))

/** The lines a file gets. */
async function lines(write: (log: AccessLog) => void): Promise<Record<string, unknown>[]> {
  const path = fresh()
  const log = open(path)
  write(log)
  await closed(log)
  return parse(readFileSync(path, 'latin1'))
}

/** Fails on half a line, on two in one, and on a last one without its line feed. */
function parse(all: string): Record<string, unknown>[] {
  if (all === '') return []
  expect(all.endsWith('\n')).toBe(true)
  return all
    .slice(0, -1)
    .split('\n')
    .map((line) => JSON.parse(line))
}

function fifo(): { path: string; reader: number } {
  const path = fresh()
  execFileSync('mkfifo', [path])
  return { path, reader: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK) }
}

/** What is in a pipe now. */
function drain(reader: number): string {
  const chunk = Buffer.alloc(65_536)
  let all = ''
  for (;;) {
    try {
      const n = readSync(reader, chunk)
      if (n === 0) return all
      all += chunk.toString('latin1', 0, n)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return all
      throw error
    }
  }
}

describe('an access line', () => {
  it('says all about a forwarded exchange', async () => {
    const done = exchange({
      route,
      endpoint,
      consumer,
      clientAddress: '10.1.2.3',
      bytesIn: 12,
      bytesOut: 3456,
      attempts: 2,
      upstreamUs: 1050,
    })
    expect(await lines((log) => log.write(done, START_US + 12_345_678))).toEqual([
      {
        level: 30,
        time: START_US / 1000 + 12_345,
        rid: '0123456789abcdef0123456789abcdef',
        consumer: 'test',
        client: '10.1.2.3',
        method: 'GET',
        path: '/hello',
        route: 'hello',
        service: 'demo',
        endpoint: 'http://127.0.0.1:9000',
        status: 200,
        bytesIn: 12,
        bytesOut: 3456,
        totalMs: 12_345.678,
        upstreamMs: 1.05,
        attempts: 2,
      },
    ])
  })

  it('names the handler that answered where that is no service', async () => {
    const page = { kind: 'static', service: null }
    const stoodIn = { ...route, fallback: page } as unknown as Route
    const own = { ...route, handler: page } as unknown as Route
    const all = await lines((log) => {
      log.write(exchange({ route: stoodIn, endpoint }), START_US)
      log.write(exchange({ route: stoodIn, endpoint, fallback: 'upstream_error' }), START_US)
      log.write(exchange({ route: own }), START_US)
    })
    expect(all.map(({ service, handler }) => [service, handler])).toEqual([
      ['demo', undefined],
      ['demo', 'static'],
      [undefined, 'static'],
    ])
  })

  it('leaves out what a refused exchange never had, and gives code and reason', async () => {
    const refused = exchange({ status: 401, code: 'unauthorized', reason: 'bad "x-m"', clientAddress: '::1' })
    expect(await lines((log) => log.write(refused, START_US + 70))).toEqual([
      {
        level: 30,
        time: START_US / 1000,
        rid: '0123456789abcdef0123456789abcdef',
        client: '::1',
        method: 'GET',
        path: '/hello',
        status: 401,
        code: 'unauthorized',
        reason: 'bad "x-m"',
        bytesIn: 0,
        bytesOut: 0,
        totalMs: 0.07,
        attempts: 0,
      },
    ])
  })

  it('shows the query only where the route asks for it', async () => {
    const telling = { ...route, logQuery: true }
    const [plain, full, none] = await lines((log) => {
      log.write(exchange({ route }, '/a', 'token=1'), START_US)
      log.write(exchange({ route: telling }, '/a', 'token=1'), START_US)
      log.write(exchange({ route: telling }, '/a', ''), START_US)
    })
    expect(JSON.stringify(plain)).not.toContain('token')
    expect(full).toMatchObject({ path: '/a', query: 'token=1', route: 'hello' })
    expect(none).not.toHaveProperty('query')
  })

  it('never holds a header, a signature or a secret', async () => {
    const [line] = await lines((log) => log.write(exchange({ route, consumer }), START_US))
    expect(JSON.stringify(line)).not.toMatch(/fa11ed|s3cret|Bearer/)
  })

  it('marks what a limit in report mode would have refused', async () => {
    const [line] = await lines((log) => log.write(exchange({ limitReported: true }), START_US))
    expect(line).toMatchObject({ limitReported: true })
  })

  it('is not written for a route that wants none', async () => {
    expect(await lines((log) => log.write(exchange({ route: { ...route, accessLog: false } }), START_US))).toEqual([])
  })

  it('carries the right time across seconds, and no negative duration', async () => {
    const all = await lines((log) => {
      for (const us of [0, 999_999, 1_000_000, 1_000_999, 59_007_000]) log.write(exchange(), START_US + us)
      log.write(exchange(), START_US - 5)
    })
    expect(all.map((line) => (line.time as number) - START_US / 1000)).toEqual([0, 999, 1000, 1000, 59_007, -1])
    expect(all.map((line) => line.totalMs)).toEqual([0, 999.999, 1000, 1000.999, 59_007, 0])
  })

  it('is one line of ASCII JSON shorter than PIPE_BUF whatever the caller sends', () => {
    const unit = fc.oneof(
      fc.integer({ min: 0, max: 0xffff }),
      fc.constantFrom(0x22, 0x5c, 0x0a, 0x00, 0x7f, 0x2028, 0xd800, 0xdc00),
    )
    const any = fc.array(unit, { maxLength: 3000 }).map((units) => String.fromCharCode(...units))
    const path = fresh()
    const log = open(path)
    fc.assert(
      fc.property(any, any, any, any, (a, b, c, d) => {
        const named = { ...route, name: a, handler: servedBy(b), logQuery: true } as Route
        const odd = exchange({ route: named, clientAddress: c, reason: d, code: 'bad_request' }, b, c, d)
        odd.consumer = { ...consumer, name: d }
        odd.endpoint = { ...endpoint, origin: a }
        const line = log.format(odd, START_US + 4e12)
        expect(line.length).toBeLessThan(PIPE_BUF)
        expect(line).toMatch(/^[\x20-\x7e]+\n$/)
        expect(JSON.parse(line)).toMatchObject({ status: 200, attempts: 0 })
      }),
      { numRuns: 300 },
    )
    log.close(() => {})
  })

  it('keeps every character of a text that fits, and shows where it was cut', () => {
    expect(JSON.parse(`"${jsonText('a"b\\c\n\u0000é😀', 100)}"`)).toBe('a"b\\c\n\u0000é😀')
    expect(JSON.parse(`"${jsonText('x\ud800y\udc00', 100)}"`)).toBe('x\ufffdy\ufffd')
    expect(jsonText('a'.repeat(20), 20)).toBe('a'.repeat(20))
    expect(jsonText('a'.repeat(21), 20)).toBe(`${'a'.repeat(14)}\\u2026`)
    for (let max = 20; max < 40; max++) {
      for (const char of ['😀', 'é', '"', 'a\\']) {
        const kept = JSON.parse(`"${jsonText(char.repeat(30), max)}"`) as string
        expect(kept.endsWith('…')).toBe(true)
        expect(char.repeat(30).startsWith(kept.slice(0, -1))).toBe(true)
        expect(kept).not.toMatch(/\p{Surrogate}/u)
      }
    }
  })
})

describe('the access log', () => {
  it('is null when off, and names the setting when it cannot be opened', () => {
    expect(createAccessLog('off')).toBeNull()
    expect(() => createAccessLog(join(folder, 'missing', 'log'))).toThrow(
      /TIDEGATE_ACCESS_LOG: cannot write to .*missing.*ENOENT/,
    )
    expect(() => createAccessLog(folder)).toThrow(/TIDEGATE_ACCESS_LOG.*EISDIR/)
  })

  it('appends to the file that is there and keeps what it makes from other users', async () => {
    const path = fresh()
    for (const status of [200, 201]) {
      const log = open(path)
      log.write(exchange({ status }), START_US)
      await closed(log)
    }
    expect(parse(readFileSync(path, 'latin1')).map((line) => line.status)).toEqual([200, 201])
    expect(statSync(path).mode & 0o007).toBe(0)
  })

  it('has everything in the file when flush calls back, and goes on afterwards', async () => {
    const path = fresh()
    const log = open(path)
    for (let i = 0; i < 1000; i++) log.write(exchange({ bytesIn: i }), START_US)
    await flushed(log)
    expect(parse(readFileSync(path, 'latin1')).map((line) => line.bytesIn)).toEqual(
      Array.from({ length: 1000 }, (_, i) => i),
    )
    log.write(exchange({ bytesIn: 1000 }), START_US)
    await closed(log)
    expect(parse(readFileSync(path, 'latin1'))).toHaveLength(1001)
    expect(log.dropped).toBe(0)
  })

  it('drops and counts whole lines while a pipe is not read, and goes on when it is', async () => {
    const { path, reader } = fifo()
    const troubles: unknown[] = []
    const log = open(path, { maxQueuedBytes: 100_000, onTrouble: (error) => troubles.push(error) })
    for (let i = 0; i < 5000; i++) log.write(exchange({ bytesIn: i }), START_US)
    await flushed(log)
    expect(log.dropped).toBeGreaterThan(1000)
    let read = ''
    const taking = setInterval(() => {
      read += drain(reader)
    }, 1)
    await flushed(log)
    for (let i = 5000; i < 5100; i++) log.write(exchange({ bytesIn: i }), START_US)
    await closed(log)
    clearInterval(taking)
    const got = parse(read + drain(reader)).map((line) => line.bytesIn as number)
    expect(got.length + log.dropped).toBe(5100)
    expect(got).toEqual([...got].sort((a, b) => a - b))
    expect(got.at(-1)).toBe(5099)
    expect(troubles).toEqual([])
    closeSync(reader)
  })

  it('outlives the reader of its pipe, says so once, and serves the next reader', async () => {
    const { path, reader } = fifo()
    const troubles: (string | undefined)[] = []
    const log = open(path, { onTrouble: (error) => troubles.push((error as NodeJS.ErrnoException | null)?.code) })
    closeSync(reader)
    for (let i = 0; i < 100; i++) log.write(exchange({ bytesIn: i }), START_US)
    await flushed(log)
    await flushed(log)
    expect(troubles).toEqual(['EPIPE'])
    const next = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    log.write(exchange({ bytesIn: 100 }), START_US)
    await closed(log)
    expect(parse(drain(next)).map((line) => line.bytesIn)).toEqual(Array.from({ length: 101 }, (_, i) => i))
    expect(troubles).toEqual(['EPIPE', undefined])
    closeSync(next)
  })

  it('survives a full disk', async () => {
    const troubles: (string | undefined)[] = []
    const log = open('/dev/full', {
      maxQueuedBytes: 10_000,
      onTrouble: (error) => troubles.push((error as NodeJS.ErrnoException | null)?.code),
    })
    for (let i = 0; i < 1000; i++) log.write(exchange(), START_US)
    await closed(log)
    expect(troubles).toEqual(['ENOSPC'])
    expect(log.dropped).toBeGreaterThan(900)
  })

  it('takes a line after it was closed without a murmur, and counts it', async () => {
    const log = open(fresh())
    await closed(log)
    for (let i = 0; i < 1000; i++) log.write(exchange(), START_US)
    await flushed(log)
    expect(log.dropped).toBe(1000)
  })
})

// Both need the built gateway (`npm test` builds first): a process of its own cannot load TypeScript.
describe('two processes with one access log', () => {
  const dist = new URL('../../../dist/src/', import.meta.url)
  const writer = `
    const [, name, target, count] = process.argv
    const { createAccessLog } = await import('${new URL('telemetry/access-log.js', dist)}')
    const { Exchange } = await import('${new URL('exchange/exchange.js', dist)}')
    const { Fields } = await import('${new URL('exchange/fields.js', dist)}')
    const log = createAccessLog(target)
    let i = 0
    function turn() {
      for (let k = 0; k < 50 && i < Number(count); k++, i++) {
        const path = '/' + name + '/' + i + '/' + name.repeat(i % 7 === 0 ? 1600 : i % 200)
        log.write(new Exchange(null, 1.7e15, 'GET', path, '', Fields.of([])), 1.7e15 + i)
      }
      if (i < Number(count)) setImmediate(turn)
      else process.stderr.write('queued', () => flush(10))
    }
    // Each flush waits a second at most, and the machine may be slow.
    function flush(times) {
      if (times > 0) log.flush(() => flush(times - 1))
      else log.close(() => { if (log.dropped > 0) process.exitCode = 1 })
    }
    turn()`
  const COUNT = 3000

  function start(name: string, target: string, stdout: number | 'ignore') {
    const args = ['--input-type=module', '-e', writer, name, target, String(COUNT)]
    const child = spawn(process.execPath, args, { stdio: ['ignore', stdout, 'pipe'] })
    return { queued: once(child.stderr!, 'data').then(String), exited: once(child, 'exit').then(([code]) => code) }
  }

  function expectWhole(all: string): void {
    const seen = { A: 0, B: 0 }
    for (const { path } of parse(all)) {
      const [, name, i] = (path as string).split('/') as ['', 'A' | 'B', string]
      expect(Number(i)).toBe(seen[name]++)
    }
    expect(seen).toEqual({ A: COUNT, B: COUNT })
  }

  it('write every line whole into the pipe that is the stdout of both, full when its reader begins', async () => {
    const { path, reader } = fifo()
    const stdout = openSync(path, 'w')
    const writers = [start('A', 'stdout', stdout), start('B', 'stdout', stdout)]
    closeSync(stdout)
    expect(await Promise.all(writers.map((writer) => writer.queued))).toEqual(['queued', 'queued'])
    const [all, ...codes] = await Promise.all([
      text(new Socket({ fd: reader, readable: true, writable: false })),
      ...writers.map((writer) => writer.exited),
    ])
    expect(codes).toEqual([0, 0])
    expectWhole(all)
  })

  it('write every line whole into one file', async () => {
    const path = fresh()
    const writers = [start('A', path, 'ignore'), start('B', path, 'ignore')]
    expect(await Promise.all(writers.map((writer) => writer.exited))).toEqual([0, 0])
    expectWhole(readFileSync(path, 'latin1'))
  })
})
