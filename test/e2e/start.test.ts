// Starts that cannot be: an exit code, one line that names the thing, and nothing left running.
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describe, expect, test } from 'vitest'
import {
  Command,
  cleanEnvironment,
  runCommand,
  startGateway,
  temporaryFolder,
  writeConfig,
} from '../support/gateway.js'
import { Lines } from '../support/lines.js'
import { call, type RequestParts } from '../support/raw-client.js'
import { requireProcesses, requireTool } from '../support/requirements.js'
import { withWrongDigit } from '../support/signing.js'

const CONFIG = {
  services: { one: { endpoints: ['http://127.0.0.1:9'] } },
  routes: [{ match: { path: '/' }, service: 'one', auth: 'none' }],
}

const environment = (env: Record<string, string> = {}) =>
  cleanEnvironment({ TIDEGATE_CONFIG: writeConfig(CONFIG), TIDEGATE_WORKERS: '2', ...env })

/** A port that something else listens on while `run` does. */
async function whileTaken(run: (port: string) => Promise<void>): Promise<void> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  try {
    await run(String((server.address() as AddressInfo).port))
  } finally {
    server.close()
  }
}

describe('does not start, with exit code 2 and a reason', () => {
  test.each(['TIDEGATE_PORT', 'TIDEGATE_ADMIN_PORT'])('where %s is in use', (variable) =>
    whileTaken(async (port) => {
      const { code, stderr, stdout } = await runCommand(['start'], environment({ [variable]: port }))
      expect(code).toBe(2)
      expect(stderr.text).toMatch(new RegExp(`${variable}: 127\\.0\\.0\\.1:${port} is in use`))
      expect(stdout.text).toBe('')
    }),
  )

  test.each([
    ['without trusted proxies', {}, /TIDEGATE_PROXY_PROTOCOL: "on" needs trustedProxies in the configuration/],
    [
      'with workers that are threads',
      { TIDEGATE_ISOLATION: 'thread', TIDEGATE_CONFIG: writeConfig({ ...CONFIG, trustedProxies: ['127.0.0.1'] }) },
      /TIDEGATE_PROXY_PROTOCOL: "on" needs workers that are processes; they are threads here: TIDEGATE_ISOLATION=thread/,
    ],
  ])('with the PROXY protocol, %s', async (_name, env: Record<string, string>, problem) => {
    const { code, stderr } = await runCommand(['start'], environment({ TIDEGATE_PROXY_PROTOCOL: 'on', ...env }))
    expect(code).toBe(2)
    expect(stderr.text).toMatch(problem)
  })

  test('without a configuration, and says how to get one', async () => {
    const missing = join(temporaryFolder(), 'missing.yaml')
    const { code, stderr } = await runCommand(['start'], environment({ TIDEGATE_CONFIG: missing }))
    expect(code).toBe(2)
    expect(stderr.text).toContain(missing)
    expect(stderr.text).toContain('--demo')
  })

  test('where the access log cannot be written', async () => {
    const { code, stderr } = await runCommand(
      ['start'],
      environment({ TIDEGATE_ACCESS_LOG: '/no/such/folder/access.log' }),
    )
    expect(code).toBe(2)
    expect(stderr.text).toMatch(/no worker can start: .*TIDEGATE_ACCESS_LOG.*\/no\/such\/folder\/access\.log/)
  })

  test('where the state file is in a folder that is not there', async (context) => {
    const state = join(temporaryFolder(), 'missing', 'tidegate.state')
    const { code, stderr } = await runCommand(['start'], environment({ TIDEGATE_STATE: state }))
    if (process.env.TIDEGATE_ISOLATION === 'thread') context.skip('threads keep no state file')
    expect(code).toBe(2)
    expect(stderr.text).toMatch(/TIDEGATE_STATE: /)
  })
})

test('a second gateway on the same state is refused, and the first serves on', async (context) => {
  const state = join(temporaryFolder(), 'tidegate.state')
  const first = await startGateway({ config: CONFIG, env: { TIDEGATE_STATE: state } })
  try {
    requireProcesses(context, first)
    const second = await runCommand(['start'], environment({ TIDEGATE_STATE: state }))
    expect(second.code).toBe(2)
    expect(second.stderr.text).toMatch(/TIDEGATE_STATE: /)
    expect(second.stderr.text).toContain(state)
    expect((await call(first.port)).status).toBe(502)
  } finally {
    await first.close()
  }
  // What the first has let go of, the next one takes.
  const third = await startGateway({ config: CONFIG, env: { TIDEGATE_STATE: state } })
  await third.close()
})

test('--demo serves without any file, and prints a command that is answered as it is and refused when it is changed', async (context) => {
  requireTool(context, 'curl')
  const demo = new Command(
    ['start', '--demo'],
    cleanEnvironment({ TIDEGATE_WORKERS: '1', TIDEGATE_CONFIG: '/nowhere' }),
  )
  try {
    const printed = await demo.access.find((line) => /^\s*curl /.test(line.text ?? ''), 'the command')
    const command = printed.text!.trim()
    const answer = execFileSync('sh', ['-c', command], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    expect(answer).toMatch(/^HTTP\/1\.1 200 /)
    expect(answer).toContain('<p>hello, world</p>')
    expect(answer).toMatch(/^x-rid: [0-9a-f]{32}\r$/m)

    const port = Number(/http:\/\/127\.0\.0\.1:(\d+)\//.exec(command)![1])
    const header = (name: string) => new RegExp(`'${name}: ([^']+)'`).exec(command)![1]!
    const signed = { 'x-source': header('x-source'), 'x-time': header('x-time'), 'x-m': header('x-m') }
    const unsigned = { 'x-source': signed['x-source'], 'x-time': signed['x-time'] }
    const late = { ...signed, 'x-time': String(Number(signed['x-time']) - 301) }
    const changed: [RequestParts, string][] = [
      [{ headers: unsigned }, 'x-m missing'],
      [{ headers: { ...signed, 'x-m': withWrongDigit(signed['x-m']) } }, 'x-m does not match'],
      [{ headers: late }, 'x-time outside the allowed skew'],
      [{ headers: signed, target: '/other' }, 'x-m does not match'],
    ]
    for (const [parts, reason] of changed) {
      const refused = await call(port, parts)
      expect(refused.status).toBe(401)
      const line = await demo.access.find((one) => one.rid === refused.rid, reason)
      expect(line).toMatchObject({ status: 401, code: 'unauthorized', reason })
    }
  } finally {
    demo.child.kill('SIGTERM')
  }
  expect(await demo.ended).toEqual({ code: 0, signal: null })
})

test.each(['SIGKILL', 'SIGTERM'] as const)(
  'npm start: %s to npm alone ends the gateway as well',
  async (signal) => {
    const folder = temporaryFolder()
    // As in package.json, less the build, which would write what other tests run.
    const { scripts } = JSON.parse(readFileSync('package.json', 'utf8')) as { scripts: { start: string } }
    const start = scripts.start.replace('npm run --silent build && ', '').replace('bin/', `${process.cwd()}/bin/`)
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, scripts: { start } }))
    const npm = spawn('npm', ['start'], {
      cwd: folder,
      env: cleanEnvironment({ TIDEGATE_WORKERS: '1', TIDEGATE_ACCESS_LOG: 'off' }),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    const log = new Lines<{ text: string }>('line of npm start')
    createInterface(npm.stderr).on('line', (text) => log.push({ text }))
    // Closed when nobody has it any more: npm, the primary and the worker.
    const gone = once(npm, 'close')
    const { text } = await log.find((line) => line.text.includes('"msg":"listening"'), 'the start')
    const { pid } = JSON.parse(text) as { pid: number }
    npm.stdout.resume()
    process.kill(npm.pid!, signal)
    const deadline = setTimeout(() => process.kill(pid, 'SIGKILL'), 30_000)
    await gone
    clearTimeout(deadline)
    await log.find((line) => line.text.includes('"msg":"ended"'), 'an orderly end')
  },
  60_000,
)
