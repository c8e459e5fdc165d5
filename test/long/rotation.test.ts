// The log files of a running gateway change hands: by logrotate with the file in examples/, by SIGUSR1, by POST
// /reopen. Every line is in exactly one file, and none goes to a former one once the gateway has said so.
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, statSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import {
  Command,
  cleanEnvironment,
  type Gateway,
  startGateway,
  temporaryFolder,
  writeConfig,
} from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireProcesses, requireTool } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

const CLIENTS = 8
const ROTATIONS = 4

let echo: Origin
beforeAll(async () => {
  echo = await startEcho()
})
afterAll(() => echo.close())

interface Logged {
  readonly gateway: Gateway
  readonly folder: string
  readonly accessLog: string
  readonly log: string
}

async function start(env: Record<string, string> = {}): Promise<Logged> {
  const folder = join(temporaryFolder(), 'log')
  mkdirSync(folder, { mode: 0o755 })
  const accessLog = join(folder, 'access.log')
  const log = join(folder, 'tidegate.log')
  const gateway = await startGateway({
    config: {
      services: { echo: { endpoints: [echo.url] } },
      routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    },
    env: { TIDEGATE_ACCESS_LOG: accessLog, TIDEGATE_LOG: log, ...env },
  })
  return { gateway, folder, accessLog, log }
}

const text = (file: string): string =>
  file.endsWith('.gz') ? gunzipSync(readFileSync(file)).toString() : readFileSync(file, 'utf8')

/** The request ids in the files whose name begins so, each as often as it stands there. A torn line is no JSON. */
function ridsIn(folder: string, name: string): string[] {
  return readdirSync(folder)
    .filter((file) => file.startsWith(name))
    .flatMap((file) => text(join(folder, file)).split('\n'))
    .filter((line) => line !== '')
    .map((line) => (JSON.parse(line) as { rid: string }).rid)
}

const reopen = (gateway: Gateway) => call(gateway.adminPort, { method: 'POST', target: '/reopen', host: 'localhost' })

/** Clients that ask again as soon as they are answered, until told to stop; every request id they were given. */
class Asking {
  readonly rids: string[] = []
  private stopping = false
  private waiting: { readonly count: number; readonly resolve: () => void } | null = null
  private readonly running: Promise<unknown>

  constructor(port: number) {
    this.running = Promise.all(Array.from({ length: CLIENTS }, () => this.ask(port)))
    this.running.catch(() => {})
  }

  /** Resolves once there are so many more answers. */
  more(count: number): Promise<void> {
    return Promise.race([
      new Promise<void>((resolve) => {
        this.waiting = { count: this.rids.length + count, resolve }
      }),
      this.running.then(() => {}),
    ])
  }

  async stop(): Promise<void> {
    this.stopping = true
    await this.running
  }

  private async ask(port: number): Promise<void> {
    const connection = await Connection.open(port)
    while (!this.stopping) {
      const { status, rid } = await connection.exchange({})
      expect(status).toBe(200)
      this.rids.push(rid)
      if (this.waiting !== null && this.rids.length >= this.waiting.count) this.waiting.resolve()
    }
    connection.destroy()
  }
}

test('logrotate, as in examples/logrotate.conf: under load every line is in exactly one file', async (context) => {
  requireTool(context, 'logrotate')
  requireTool(context, 'curl')
  const { gateway, folder, accessLog } = await start()
  const example = readFileSync(resolve(import.meta.dirname, '../../examples/logrotate.conf'), 'utf8')
  const file = join(folder, '..', 'logrotate.conf')
  const conf = example.replaceAll('/var/log/tidegate', folder).replaceAll(':9901', `:${gateway.adminPort}`)
  writeFileSync(file, conf, { mode: 0o644 })
  const asking = new Asking(gateway.port)
  for (let i = 0; i < ROTATIONS; i++) {
    await asking.more(500)
    execFileSync('logrotate', ['--force', '--state', join(folder, '..', 'logrotate.state'), file], {
      env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
    })
  }
  await asking.more(500)
  await asking.stop()
  await gateway.close()
  expect(readdirSync(folder).sort()).toEqual([
    'access.log',
    ...[1, 2, 3, 4].map((n) => `access.log.${n}.gz`),
    'tidegate.log',
    ...[1, 2, 3, 4].map((n) => `tidegate.log.${n}.gz`),
  ])
  expect(statSync(accessLog).mode & 0o777).toBe(0o640)
  expect(ridsIn(folder, 'access.log').sort()).toEqual(asking.rids.sort())
  // What the gateway says of a rotation is the first line of the new file.
  expect(text(join(folder, 'tidegate.log.1.gz'))).toContain('"log files opened anew"')
}, 30_000)

test('SIGUSR1 opens both anew in every worker, and the debugger nowhere', async (context) => {
  const { gateway, folder, accessLog, log } = await start()
  requireProcesses(context, gateway)
  for (const path of [accessLog, log]) renameSync(path, `${path}.1`)
  gateway.signal('SIGUSR1')
  await gateway.log.find((line) => line.msg === 'log files opened anew', 'the new files')
  const formerly = statSync(`${accessLog}.1`).size
  const asking = new Asking(gateway.port)
  await asking.more(100)
  await asking.stop()
  await gateway.close()
  expect(statSync(`${accessLog}.1`).size).toBe(formerly)
  expect(ridsIn(folder, 'access.log').sort()).toEqual(asking.rids.sort())
  expect(gateway.command.stderr.text).toBe('')
})

test('where the new files cannot be opened, lines go on to the former ones and everybody is told', async () => {
  const { gateway, folder, accessLog } = await start()
  const elsewhere = `${folder}.away`
  renameSync(folder, elsewhere)
  const refused = await reopen(gateway)
  expect(refused.status).toBe(500)
  expect(refused.json()).toEqual({
    reopened: false,
    problems: expect.arrayContaining([
      expect.stringMatching(/^TIDEGATE_LOG: cannot write to .*ENOENT/),
      expect.stringMatching(/^TIDEGATE_ACCESS_LOG: cannot write to .*ENOENT/),
    ]),
  })
  const asking = new Asking(gateway.port)
  // More than waits in memory for its batch.
  await asking.more(1000)
  mkdirSync(folder)
  expect((await reopen(gateway)).json()).toEqual({ reopened: true, problems: [] })
  const formerly = ridsIn(elsewhere, 'access.log')
  await asking.more(100)
  await asking.stop()
  await gateway.close()
  expect(formerly.length).toBeGreaterThan(0)
  expect(ridsIn(elsewhere, 'access.log')).toEqual(formerly)
  expect([...formerly, ...ridsIn(folder, 'access.log')].sort()).toEqual(asking.rids.sort())
  expect(text(join(elsewhere, 'tidegate.log'))).toContain('log files not opened anew')
  expect(statSync(accessLog).mode & 0o777).toBe(0o640)
})

test('lines that the former file has refused go to the new one', async (context) => {
  requireTool(context, 'prlimit')
  const { gateway, folder, accessLog } = await start({ TIDEGATE_WORKERS: '1', TIDEGATE_LOG: 'stderr' })
  requireProcesses(context, gateway)
  const { workers } = await gateway.status()
  // As on a full disk: the file may not grow.
  const limit = (bytes: string): unknown =>
    execFileSync('prlimit', ['--pid', String(workers[0]!.pid), `--fsize=${bytes}`])
  limit('0:unlimited')
  const { rid } = await call(gateway.port)
  await gateway.log.find((line) => line.msg === 'access log cannot be written', 'the refusal')
  renameSync(accessLog, `${accessLog}.1`)
  limit('unlimited:unlimited')
  expect((await reopen(gateway)).status).toBe(200)
  await gateway.log.find((line) => line.msg === 'access log is written again', 'the new file')
  await gateway.close()
  expect(text(`${accessLog}.1`)).toBe('')
  expect(ridsIn(folder, 'access.log')).toEqual([rid])
})

test('without log files there is nothing to open, and SIGUSR1 does no harm', async () => {
  const gateway = await startGateway({
    config: {
      services: { echo: { endpoints: [echo.url] } },
      routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
    },
  })
  gateway.signal('SIGUSR1')
  await gateway.log.find((line) => line.msg === 'log files opened anew', 'the answer to the signal')
  expect((await reopen(gateway)).json()).toEqual({ reopened: true, problems: [] })
  await gateway.close()
})

test('SIGUSR1 and SIGHUP while the gateway starts are heard once it has started', async () => {
  const log = join(temporaryFolder(), 'tidegate.log')
  const config = {
    services: { echo: { endpoints: [echo.url] } },
    routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
  }
  const file = writeConfig(config)
  const command = new Command(['start'], cleanEnvironment({ TIDEGATE_CONFIG: file, TIDEGATE_LOG: log }))
  await command.log.find((line) => line.msg === 'starting', 'its first line')
  writeFileSync(file, JSON.stringify({ ...config, routes: [{ ...config.routes[0], name: 'renamed' }] }))
  command.child.kill('SIGHUP')
  renameSync(log, `${log}.1`)
  command.child.kill('SIGUSR1')
  const written = (): string => (existsSync(log) ? text(log) : '')
  await eventually('the new file', written, (lines) => lines.includes('log files opened anew'))
  const both = (): string => text(`${log}.1`) + written()
  await eventually('the reload in either file', both, (lines) => lines.includes('configuration reloaded'))
  command.child.kill('SIGTERM')
  expect((await command.ended).code).toBe(0)
  expect(written()).toContain('ended')
})
