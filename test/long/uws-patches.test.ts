// Without the patches to uWebSockets.js, all of them or one: the gateway starts, says so once in each worker, and
// serves what it can serve safely. One is had by breaking it for real, in a build of the addon for this test: its proof
// then fails as it would with another uWebSockets.js.
import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, afterEach, beforeAll, describe, expect, type TestContext, test } from 'vitest'
import { CLASSES } from '../support/framing-cases.mjs'
import { faults, whole } from '../support/framing-run.js'
import { type Gateway, type GatewayOptions, type LogLine, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, type Seen, sha256, startEcho } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireAcceptor, requireNativeBuild } from '../support/requirements.js'

const root = join(import.meta.dirname, '../..')
const WORKERS = 2
const NO_GATE = 'no gate before the parser'

let echo: Origin
let gateway: Gateway | null = null

beforeAll(async () => {
  echo = await startEcho()
})

afterEach(async () => {
  const running = gateway
  gateway = null
  await running?.close()
})

afterAll(() => echo.close())

async function start(options: Partial<GatewayOptions>): Promise<Gateway> {
  gateway = await startGateway({
    config: {
      services: { echo: { endpoints: [echo.url] } },
      routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    },
    workers: WORKERS,
    ...options,
  })
  return gateway
}

/** What includes native/src/uws/breaks.h and asks it. */
const BREAKABLE = ['uws/gate', 'uws/relay', 'uws/syscalls']

/** The package with an addon in which TIDEGATE_TEST_BREAK breaks a patch: made once, by whichever test is first. */
let broken: Promise<string> | null = null

function brokenPackage(context: TestContext): Promise<string> {
  const headers = requireNativeBuild(context)
  broken ??= build(headers)
  return broken
}

async function build(headers: string): Promise<string> {
  const copy = temporaryFolder()
  for (const part of ['dist/src', 'dist/native', 'package.json'])
    cpSync(join(root, part), join(copy, part), { recursive: true })
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  const release = join(copy, 'native/build/Release')
  mkdirSync(release, { recursive: true })
  // The rest of the addon is as it was built.
  const objects = join(root, 'native/build/Release/obj.target/tidegate/src')
  const kept = readdirSync(objects, { recursive: true, encoding: 'utf8' }).filter(
    (name) => name.endsWith('.o') && !BREAKABLE.includes(name.slice(0, -2)),
  )
  await promisify(execFile)(process.env.CXX ?? 'g++', [
    ...['-std=c++17', '-O0', '-fno-exceptions', '-fno-rtti', '-shared', '-fPIC', '-fvisibility=hidden'],
    ...['-DNAPI_VERSION=8', '-DTIDEGATE_BREAKABLE', `-isystem${headers}`, '-o', join(release, 'tidegate.node')],
    ...BREAKABLE.map((name) => join(root, 'native/src', `${name}.cc`)),
    ...kept.map((name) => join(objects, name)),
  ])
  return copy
}

async function startBroken(context: TestContext, patch: string): Promise<Gateway> {
  const copy = await brokenPackage(context)
  return start({ cli: join(copy, 'dist/src/cli/main.js'), env: { TIDEGATE_TEST_BREAK: patch } })
}

const warnings = ({ log }: Gateway): readonly LogLine[] =>
  log.all.filter((line) => line.level >= 40 && 'worker' in line)

/** Each worker says it once, and nothing else. */
function expectSaid(one: Gateway, line: object): void {
  expect(warnings(one)).toEqual(Array.from({ length: WORKERS }, () => expect.objectContaining({ level: 40, ...line })))
  expect(new Set(warnings(one).map(({ worker }) => worker)).size).toBe(WORKERS)
}

async function expectServes({ port }: Gateway): Promise<void> {
  const connection = await Connection.open(port)
  expect((await connection.exchange({ target: '/a' })).status).toBe(200)
  const posted = await connection.exchange({ method: 'POST', target: '/b', body: 'hello' })
  expect([posted.status, posted.json<Seen>().bodySha256]).toEqual([200, sha256('hello')])
  expect(await connection.exchange({ method: 'HEAD', target: '/c' })).toMatchObject({ status: 200, text: '' })
  expect((await connection.exchange({ target: '/d' })).status).toBe(200)
  connection.destroy()
  expect((await call(port, { target: '/e', headers: { Connection: 'close' } })).status).toBe(200)
}

/** What is refused without a gate as well. */
async function expectRefuses({ port }: Gateway, classes = CLASSES.filter(({ gate }) => !gate)): Promise<void> {
  const before = echo.bytes
  for (const { name, requests, status } of classes) {
    expect(await faults(port, requests, status, whole), name).toEqual([])
  }
  expect(echo.bytes).toBe(before)
}

/** What is doubtful is refused, and no request behind it in the same bytes is served. */
async function expectRefusesChunked({ port, access }: Gateway): Promise<void> {
  const chunked = 'POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'
  const connection = await Connection.open(port)
  await connection.write(chunked)
  const answer = await connection.answer()
  expect([answer.status, answer.one('connection')?.toLowerCase()]).toEqual([400, 'close'])
  await connection.closedByPeer()

  const before = echo.bytes
  for (const doubtful of [
    chunked.replace(' / ', ' /doubtful '),
    'POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5, 5\r\n\r\nhello',
  ]) {
    const other = await Connection.open(port)
    await other.write(`${doubtful}GET /behind HTTP/1.1\r\nHost: a.test\r\n\r\n`)
    await other.reader.some().catch(() => null)
    other.destroy()
  }
  expect(echo.bytes).toBe(before)
  expect(access.all.filter((line) => line.path === '/behind')).toEqual([])
  // Refused, or left without a response by uWS: it is logged all the same.
  const line = await access.find(({ path }) => path === '/doubtful', 'the doubtful request')
  expect([line.code, line.rid.length]).toEqual([expect.stringMatching(/^(bad_request|client_closed)$/), 32])
}

async function expectHttp10({ port }: Gateway, served: boolean): Promise<void> {
  const connection = await Connection.open(port)
  await connection.write('GET / HTTP/1.0\r\nHost: a.test\r\n\r\n')
  expect(String(await connection.reader.some())).toMatch(served ? /^HTTP\/1\.1 200 / : /^HTTP\/1\.1 505 /)
  connection.destroy()
}

describe('TIDEGATE_UWS_PATCHES=off', () => {
  test('starts, says so, and serves', async () => {
    const one = await start({ env: { TIDEGATE_UWS_PATCHES: 'off' } })
    expectSaid(one, { reason: 'TIDEGATE_UWS_PATCHES=off', msg: expect.stringContaining(NO_GATE) })
    await expectServes(one)
    await expectRefuses(one)
    await expectRefusesChunked(one)
    if (one.isolation === 'process') await expectHttp10(one, false)
  })
})

test('the proofs of all patches hold with the uWebSockets.js that is loaded, and nothing is said', async (context) => {
  requireAcceptor(context)
  const one = await start({})
  expect(warnings(one)).toEqual([])
  await expectServes(one)
  await expectHttp10(one, true)
})

// The first of them builds the addon.
describe('a patch whose proof fails', { timeout: 60_000 }, () => {
  test.for(['handlers', 'gate'])('%s: there is no gate', async (patch, context) => {
    const one = await startBroken(context, patch)
    expectSaid(one, { patch, reason: expect.stringMatching(/./), msg: expect.stringContaining(NO_GATE) })
    await expectServes(one)
    await expectRefuses(one)
    await expectRefusesChunked(one)
  })

  test('syscalls: uWebSockets.js makes its calls by itself', async (context) => {
    requireAcceptor(context)
    const one = await startBroken(context, 'syscalls')
    expectSaid(one, { patch: 'syscalls', reason: expect.stringContaining('setsockopt') })
    await expectServes(one)
    await expectRefuses(one, CLASSES)
    await expectHttp10(one, true)
  })

  test('delivery: the acceptor leaves first bytes in the socket', async (context) => {
    requireAcceptor(context)
    const one = await startBroken(context, 'delivery')
    expectSaid(one, { patch: 'delivery' })
    await expectServes(one)
    await expectRefuses(one, CLASSES)
    await expectHttp10(one, true)
  })

  test('relay: HTTP/1.0 gets 505', async (context) => {
    requireAcceptor(context)
    const one = await startBroken(context, 'relay')
    expectSaid(one, { patch: 'relay', msg: 'requests of HTTP/1.0 get 505' })
    await expectServes(one)
    await expectRefuses(one, CLASSES)
    await expectHttp10(one, false)
  })

  test('the same build with nothing broken says nothing', async (context) => {
    const one = await startBroken(context, 'nothing')
    expect(warnings(one)).toEqual([])
    await expectServes(one)
  })
})
