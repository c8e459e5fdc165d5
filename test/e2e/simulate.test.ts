// `tidegate simulate` against a gateway: what it says of a recorded log is what the gateway has done, and what a change
// of the configuration changes is what another gateway would do.
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { simulate } from '../../src/cli/simulate/simulate.js'
import type { Report } from '../../src/simulate/report.js'
import { cleanEnvironment, startGateway, temporaryFolder, writeConfig } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { call } from '../support/raw-client.js'
import { type Caller, signedHeaders } from '../support/signing.js'

const A: Caller = { source: 'a', secret: 'the-secret-of-the-a' }
const B: Caller = { source: 'b', secret: 'the-secret-of-the-b' }
const CLI = resolve('dist/src/cli/main.js')

interface Result {
  readonly code: number
  readonly out: string
  readonly err: string
}

function command(args: readonly string[], input: string): Promise<Result> {
  return new Promise((done) => {
    const child = execFile(
      process.execPath,
      [CLI, 'simulate', ...args],
      { env: cleanEnvironment() },
      (error, out, err) => done({ code: error === null ? 0 : (error.code as number), out, err }),
    )
    child.stdin!.end(input)
  })
}

/** In this process, which costs a start less. */
async function reportOf(...names: readonly string[]): Promise<Report> {
  return JSON.parse((await simulate(names, { json: true }, (text) => text, cleanEnvironment())).text) as Report
}

async function compared(old: string, now: string, log: string) {
  const compare = [old, now]
  const { text, changed } = await simulate([log], { compare }, (text) => text, cleanEnvironment())
  const { text: json } = await simulate([log], { compare, json: true }, (text) => text, cleanEnvironment())
  return { text, changed, report: JSON.parse(json) as Report }
}

let echo: Origin
let failing = false

beforeAll(async () => {
  echo = await startEcho({ status: () => (failing ? 503 : 200) })
})

afterAll(() => echo.close())

/** Of both services; `limits` and `breaker` are what the tests vary. */
function configuration(limits: object, breaker?: object): object {
  return {
    consumers: { a: { secret: A.secret, groups: ['gold'] }, b: { secret: B.secret } },
    trustedProxies: ['127.0.0.1'],
    limits,
    services: { echo: { endpoints: [echo.url], ...(breaker === undefined ? {} : { breaker }) } },
    routes: [
      { name: 'signed', match: { path: '/signed' }, service: 'echo', auth: 'x-m', limits: Object.keys(limits) },
      { name: 'open', match: { path: '/open' }, service: 'echo', auth: 'none' },
    ],
  }
}

/** The log of a gateway with this configuration. */
async function record(config: object, traffic: (port: number) => Promise<void>): Promise<string> {
  const log = join(temporaryFolder(), 'access.log')
  const gateway = await startGateway({ config, env: { TIDEGATE_ACCESS_LOG: log } })
  await traffic(gateway.port)
  await gateway.close()
  return log
}

const signed = (port: number, caller: Caller) =>
  call(port, { target: '/signed', headers: signedHeaders(caller, { target: '/signed' }) })

describe('limits', () => {
  const LIMITS = {
    window: { by: 'consumer', rate: '8/h' },
    tiered: { by: 'consumer', rate: '1/h', burst: 50, tiers: { 'group:gold': { rate: '1/h', burst: 5 } } },
    daily: { by: 'address', quota: '1000/day' },
  }
  const STRICTER = { ...LIMITS, window: { by: 'consumer', rate: '7/h' } }
  let log = ''
  let same = ''
  let stricter = ''

  beforeAll(async () => {
    const config = configuration(LIMITS)
    log = await record(config, async (port) => {
      // One after the other: which of them are refused is certain then.
      for (let i = 0; i < 15; i++) {
        await signed(port, A)
        await signed(port, B)
        await call(port, { target: '/open' })
      }
      await call(port, { target: '/nowhere' })
      await call(port, { target: '/signed' })
    })
    same = writeConfig(config)
    stricter = writeConfig(configuration(STRICTER))
  })

  test('refuse the very requests that the gateway refused', async () => {
    const report = await reportOf(same, log)
    expect(report.changes).toEqual([])
    expect(report.changed).toBe(0)
    expect(Object.fromEntries(report.limits.map(({ limit, refused }) => [limit, refused[1]]))).toEqual({
      tiered: 10,
      window: 7,
    })
    expect(report.limits.every(({ refused }) => refused[0] === refused[1])).toBe(true)
    expect(report.log).toMatchObject({ requests: 47, malformed: 0, late: 0 })
  })

  test('that are stricter refuse more, and the comparison says whom', async () => {
    const report = await reportOf(stricter, log)
    expect(report.limits.find(({ limit }) => limit === 'window')?.who).toEqual([{ name: 'b', requests: [7, 8] }])
    const { text, changed, report: difference } = await compared(same, stricter, log)
    expect(difference.changes).toEqual([
      { from: '200', to: '429 limit window', requests: 1, who: [{ name: 'b', requests: 1 }] },
    ])
    expect(text).toMatch(/window +7 → 8 +b 7 → 8/)
    // What is the same is not shown.
    expect(text).not.toMatch(/open|tiered/)
    expect(changed).toBe(true)
    expect((await compared(same, same, log)).changed).toBe(false)
  })

  test('compressed, and in several files in any order', async () => {
    const lines = readFileSync(log, 'utf8')
    const folder = temporaryFolder()
    const at = lines.indexOf('\n', lines.length / 2) + 1
    const [older, newer] = [join(folder, 'access.log.1.gz'), join(folder, 'access.log')]
    writeFileSync(older, gzipSync(lines.slice(0, at)))
    writeFileSync(newer, lines.slice(at))
    expect(await reportOf(same, newer, older)).toMatchObject({
      changed: 0,
      log: { files: [older, newer], requests: 47 },
    })
  })

  test('by the command, from standard input', async () => {
    const lines = readFileSync(log, 'utf8')
    const { code, out } = await command([same, '-', '--fail-on-change'], `not a line\n${lines}{"half":`)
    expect(code).toBe(0)
    expect(out).toContain('every request ends as it did')
    expect(out).toContain('left out 2 lines of another kind:')
    expect(out).toContain('standard input:1 is not JSON')
    expect(await command(['--compare', same, stricter, '-', '--fail-on-change'], lines)).toMatchObject({ code: 1 })
    expect(await command([same, same], '')).toEqual({
      code: 2,
      out: '',
      err: `error: ${same}: is no access log of Tidegate; line 1 is not JSON\n`,
    })
  })
})

describe('breakers', () => {
  const BREAKER = { window: '10s', minRequests: 10, failureRatio: 0.5, openFor: '1m' }

  async function outage(port: number): Promise<void> {
    for (let i = 0; i < 10; i++) await call(port, { target: '/open' })
    failing = true
    for (let i = 0; i < 30; i++) await call(port, { target: '/open' })
    failing = false
    for (let i = 0; i < 10; i++) await call(port, { target: '/open' })
  }

  test('open in a recorded outage as one would have done', async () => {
    const log = await record(configuration({}), outage)
    const [breaker, ...others] = (await reportOf(writeConfig(configuration({}, BREAKER)), log)).breakers
    expect(others).toEqual([])
    expect(breaker).toMatchObject({ service: 'echo', opened: [null, 1], openings: [null, [{ reason: 'failures' }]] })
    // With the tenth failure; a line's time is a whole millisecond, so the next call may still be let through.
    expect(breaker!.refused[0]).toBe(0)
    expect(breaker!.refused[1]).toBeGreaterThanOrEqual(27)
    expect(breaker!.refused[1]).toBeLessThanOrEqual(31)
  })

  test('that were there refuse as many as the log says', async () => {
    const config = configuration({}, BREAKER)
    const log = await record(config, outage)
    const report = await reportOf(writeConfig(config), log)
    const [{ refused }] = report.breakers as [Report['breakers'][number]]
    expect(refused[0]).toBeGreaterThanOrEqual(27)
    expect(Math.abs(refused[0] - refused[1])).toBeLessThanOrEqual(3)
  })
})

describe('retries', () => {
  test('would have spared clients one bad replica of two', async () => {
    let isBad = false
    const bad = await startEcho({ status: () => (isBad ? 503 : 200) })
    const before = echo.requests.all.length
    const services = (retries: unknown) => ({ both: { endpoints: [echo.url, bad.url], retries } })
    const routes = [{ name: 'r', match: { path: '/' }, service: 'both', auth: 'none' }]
    const log = await record({ services: services(false), routes }, async (port) => {
      // Until both have answered well.
      while (echo.requests.all.length === before || bad.requests.all.length === 0) await call(port, { target: '/' })
      isBad = true
      for (let i = 0; i < 40; i++) await call(port, { target: '/' })
    })
    await bad.close()
    const report = await reportOf(writeConfig({ services: services({ budget: 1 }), routes }), log)
    // A loaded machine may have the gateway shed a request, which stays as logged.
    const [change, ...others] = report.changes
    expect(others).toEqual([])
    expect(change).toMatchObject({ from: '503', to: '200' })
    expect(report.retries).toEqual([{ service: 'both', made: [0, change!.requests], refusedByBudget: [0, 0] }])
    expect((await reportOf(writeConfig({ services: services(false), routes }), log)).changed).toBe(0)
  })
})
