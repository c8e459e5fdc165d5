// A gateway that is to take another one's place, and cannot: the other one serves on as if nothing had been. What
// happens where it can is in support/chaos.ts.
import { statSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, type TestContext, test } from 'vitest'
import { freePort } from '../support/free-port.mjs'
import {
  Command,
  cleanEnvironment,
  forwardAll,
  type Gateway,
  runCommand,
  startGateway,
  temporaryFolder,
  writeConfig,
} from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { call } from '../support/raw-client.js'
import { requireProcesses } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

let origin: Origin
let config: object

beforeAll(async () => {
  origin = await startEcho()
  config = forwardAll(origin)
})

afterAll(() => origin.close())

const state = (): string => join(temporaryFolder(), 'state')

/** What `tidegate start --takeover` says when it ends, with its exit code. */
async function attempt(env: Record<string, string>): Promise<[number | null, string]> {
  const { code, stderr } = await runCommand(
    ['start', '--takeover'],
    cleanEnvironment({ TIDEGATE_CONFIG: writeConfig(config), TIDEGATE_WORKERS: '2', ...env }),
  )
  return [code, stderr.text.split('\n').at(-2) ?? '']
}

async function expectServing(gateway: Gateway): Promise<void> {
  expect((await call(gateway.port)).status).toBe(200)
  const readiness = () =>
    gateway.admin('/readyz').then(
      ({ status }) => status,
      () => 0,
    )
  await eventually('the admin listener to say that it is ready', readiness, 200)
}

test('there must be a gateway to take over from', async (context) => {
  const at = state()
  expect(await attempt({ TIDEGATE_STATE: 'none' })).toEqual([
    2,
    expect.stringMatching(/--takeover: .*(TIDEGATE_STATE=none|threads)/),
  ])
  const gateway = await startGateway({ config })
  try {
    requireProcesses(context, gateway)
    expect(await attempt({ TIDEGATE_STATE: at })).toEqual([
      2,
      expect.stringContaining(`--takeover: no gateway runs that has the state in ${at}`),
    ])
  } finally {
    await gateway.close()
  }
})

test('one of an earlier version is found where that kept its state: in the temp directory', async (context) => {
  const folder = temporaryFolder()
  const port = await freePort()
  const at = join(folder, `tidegate-${process.getuid!()}-${port}.state`)
  const old = await startGateway({ config, env: { TIDEGATE_STATE: at, TIDEGATE_PORT: String(port) } })
  try {
    requireProcesses(context, old)
    const env = { TIDEGATE_STATE: '', TIDEGATE_PORT: String(port), TMPDIR: folder, XDG_RUNTIME_DIR: '' }
    const next = await startGateway({ config, args: ['--takeover'], env })
    expect(await old.command.ended).toEqual({ code: 0, signal: null })
    expect((await next.status<{ state: { path: string } }>()).state.path).toBe(at)
    await expectServing(next)
    await next.close()
  } finally {
    if (old.command.child.exitCode === null) await old.close()
  }
})

test('one that cannot serve leaves the other as it was', async (context) => {
  const at = state()
  const gateway = await startGateway({ config, env: { TIDEGATE_STATE: at } })
  try {
    requireProcesses(context, gateway)
    expect(statSync(`${at}.sock`).mode & 0o777).toBe(0o600)
    const where = { TIDEGATE_STATE: at, TIDEGATE_PORT: String(gateway.port) }
    const other = { ...where, TIDEGATE_PORT: String(gateway.port === 1 ? 2 : 1) }
    expect(await attempt(other)).toEqual([
      2,
      expect.stringContaining(`listens on 127.0.0.1:${gateway.port}, and not on`),
    ])
    await expectServing(gateway)
    // No worker of it can start.
    expect(await attempt({ ...where, TIDEGATE_ACCESS_LOG: '/nowhere/at/all' })).toEqual([
      2,
      expect.stringContaining('no worker can start'),
    ])
    await expectServing(gateway)
    // Its workers serve beside the old ones by then.
    const admin = { TIDEGATE_ADMIN_PORT: String(origin.port) }
    expect(await attempt({ ...where, ...admin })).toEqual([2, expect.stringContaining('TIDEGATE_ADMIN_PORT')])
    await gateway.log.take(3, ({ msg }) => msg === 'the other gateway did not take over', 'all of them')
    await expectServing(gateway)

    const next = await startGateway({ config, args: ['--takeover'], env: where })
    expect(await gateway.command.ended).toEqual({ code: 0, signal: null })
    await expectServing(next)
    await next.close()
  } finally {
    if (gateway.command.child.exitCode === null) await gateway.close()
  }
}, 60_000)

describe('killed in the middle of it', () => {
  /** Two gateways, the second of which has a worker that listens and is not ready: it shall have four. */
  async function halfway(context: TestContext): Promise<{ old: Gateway; next: Command; port: number }> {
    const at = state()
    const old = await startGateway({ config, env: { TIDEGATE_STATE: at }, losesWorkers: true })
    requireProcesses(context, old)
    const next = new Command(
      ['start', '--takeover'],
      cleanEnvironment({
        TIDEGATE_CONFIG: writeConfig(config),
        TIDEGATE_STATE: at,
        TIDEGATE_PORT: String(old.port),
        TIDEGATE_WORKERS: '4',
      }),
    )
    await next.log.find(({ msg }) => msg === 'worker listens', 'the first worker')
    return { old, next, port: old.port }
  }

  test('the successor leaves the other serving', async (context) => {
    const { old, next } = await halfway(context)
    next.child.kill('SIGKILL')
    await next.ended
    for (let i = 0; i < 20; i++) expect((await call(old.port)).status).toBe(200)
    await expectServing(old)
    await old.close()
  })

  test('the old one leaves the successor serving, as soon as it sees what became of it', async (context) => {
    const { old, next, port } = await halfway(context)
    old.signal('SIGKILL')
    await old.command.ended
    await next.log.find(({ msg }) => msg === 'listening', 'the end of its start')
    const status = () =>
      call(port).then(
        (answer) => answer.status,
        () => 0,
      )
    await eventually('the successor to serve', status, 200)
    for (let i = 0; i < 20; i++) expect((await call(port)).status).toBe(200)
    next.child.kill('SIGTERM')
    expect(await next.ended).toEqual({ code: 0, signal: null })
  })
})
