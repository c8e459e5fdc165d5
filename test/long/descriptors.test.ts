// A gateway with fewer descriptors than its clients would take: clients that it has are served on, through connections
// to the service, and others are refused. No worker ends of it, nor does the primary.
import { execFileSync } from 'node:child_process'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireProcesses, requireTool } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

const LIMIT = 200
const CLIENTS = 600
const REFUSED = 'tidegate_connections_refused_total{reason="descriptors"}'

let echo: Origin
beforeAll(async () => {
  echo = await startEcho()
})
afterAll(() => echo.close())

const start = (
  descriptors: number,
  rest: { losesWorkers?: boolean; workers?: number; env?: Record<string, string> } = {},
): Promise<Gateway> =>
  startGateway({
    config: {
      services: { echo: { endpoints: [echo.url] } },
      routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    },
    descriptors,
    ...rest,
  })

const pids = async (gateway: Gateway): Promise<number[]> => (await gateway.status()).workers.map(({ pid }) => pid)

test('more clients than descriptors: those it has are served, the others refused, nothing ends', async () => {
  const gateway = await start(LIMIT)
  const workers = await pids(gateway)
  const line = await gateway.log.find(({ msg }) => msg.includes('ulimit -n'), 'the limit at the start')
  expect(line).toMatchObject({ limit: LIMIT, connectionsPerWorker: expect.any(Number) })
  const kept: Connection[] = []
  let refused = 0
  for (let i = 0; i < CLIENTS; i++) {
    const connection = await Connection.open(gateway.port)
    // Where workers are threads uWebSockets.js accepts, and the connection is closed without a word.
    const status = await connection.exchange({}).then(
      (answer) => answer.status,
      () => 0,
    )
    if (status === 200) kept.push(connection)
    else {
      expect(status).toBe(gateway.isolation === 'process' ? 503 : 0)
      refused++
      connection.destroy()
    }
  }
  // Most of the descriptors are clients', and each of these has one of the service's when it needs it.
  expect(kept.length).toBeGreaterThan(gateway.isolation === 'process' ? LIMIT / 2 : 20)
  expect(refused).toBeGreaterThan(0)
  expect(await gateway.metric(REFUSED)).toBe(refused)
  for (let round = 0; round < 3; round++) {
    const answers = await Promise.all(kept.map((connection) => connection.exchange({ method: 'POST', body: 'x' })))
    expect(answers.map(({ status }) => status)).toEqual(kept.map(() => 200))
  }
  // Whoever leaves makes room for another.
  for (const connection of kept.splice(0, 20)) connection.destroy()
  const open = async () => (await gateway.status()).workers.reduce((sum, { connections }) => sum + connections, 0)
  await eventually('those that left to be counted off', open, kept.length)
  const another = await Connection.open(gateway.port)
  expect((await another.exchange({})).status).toBe(200)
  expect(await pids(gateway)).toEqual(workers)
  for (const connection of [another, ...kept]) connection.destroy()
  await gateway.close()
})

test('a worker that has no descriptor left goes on beating and comes back', async (context) => {
  requireTool(context, 'prlimit')
  const gateway = await start(LIMIT, { workers: 1 })
  requireProcesses(context, gateway)
  const [pid] = await pids(gateway)
  const client = await Connection.open(gateway.port)
  expect((await client.exchange({})).status).toBe(200)
  // Below what it has open already: no open, no accept and no socket succeeds.
  execFileSync('prlimit', ['--pid', String(pid), '--nofile=8:'])
  const waiting = await Connection.open(gateway.port)
  await waiting.send({})
  await gateway.log.find(({ msg }) => msg === 'cannot accept connections for the moment', 'what it says of it')
  // Several heartbeats, of which each fifth asks how much memory it has; the connection to the service is there
  // already.
  const uptime = async () => (await gateway.status<{ workers: { uptimeMs: number }[] }>()).workers[0]!.uptimeMs
  const since = await uptime()
  await eventually('several heartbeats', uptime, (ms) => ms > since + 2500)
  expect((await client.exchange({})).status).toBe(200)
  execFileSync('prlimit', ['--pid', String(pid), `--nofile=${LIMIT}:`])
  expect((await waiting.answer()).status).toBe(200)
  expect(await pids(gateway)).toEqual([pid])
  client.destroy()
  waiting.destroy()
  await gateway.close()
})

test('a primary that cannot start a worker for want of descriptors says so, and tries again', async (context) => {
  requireTool(context, 'prlimit')
  const gateway = await start(LIMIT, { losesWorkers: true })
  requireProcesses(context, gateway)
  const primary = gateway.command.child.pid!
  const [victim] = await pids(gateway)
  execFileSync('prlimit', ['--pid', String(primary), '--nofile=8:'])
  process.kill(victim!, 'SIGKILL')
  await gateway.log.find(({ msg, reason }) => msg === 'worker died' && /EMFILE/.test(reason ?? ''), 'the failed start')
  execFileSync('prlimit', ['--pid', String(primary), `--nofile=${LIMIT}:`])
  await gateway.log.take(3, ({ msg }) => msg === 'worker listens', 'another worker')
  await gateway.close()
})
