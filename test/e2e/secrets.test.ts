// Nothing that is secret is to be found outside the process: not in what it writes, not in what it answers, not in its
// command line, not in its files; and its files are nobody else's, whatever the umask.
import { createPrivateKey } from 'node:crypto'
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { createAuthority, writePair } from '../support/certificates.js'
import { cleanEnvironment, type Gateway, runCommand, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { signedHeaders } from '../support/signing.js'

const WRITTEN = 'a-secret-that-is-written-down'
const FROM_ENVIRONMENT = 'a-secret-of-the-environment'
const FROM_FILE = 'a-secret-from-a-file'
const API_KEY = 'an-api-key-that-is-long-enough-to-be-one'
const PASSWORD = 'a-password-that-somebody-chose'
const HMAC_KEY = 'what-an-issuer-signs-its-tokens-with'
const PASSPHRASE = 'a-passphrase-of-a-key'
const THREADS = process.env.TIDEGATE_ISOLATION === 'thread'

let folder: string
let origin: Origin
let gateway: Gateway
let config: Record<string, unknown>
let secrets: string[]
/** All that was read, by where. */
const found: Record<string, string> = {}

const env = { OF_ENVIRONMENT: FROM_ENVIRONMENT, PASSPHRASE, API_KEY, PASSWORD, HMAC_KEY }

beforeAll(async () => {
  folder = temporaryFolder()
  const authority = await createAuthority()
  const site = await authority.issue({ cn: 'site', dns: ['site.test'], passphrase: PASSPHRASE })
  const own = await authority.issue({ cn: 'gateway', passphrase: PASSPHRASE })
  const upstream = await authority.issue({ cn: 'origin', dns: ['localhost'] })
  origin = await startEcho({ tls: upstream })
  writeFileSync(join(folder, 'secret'), FROM_FILE)
  const { cert: ca } = writePair(authority, folder, 'ca')
  config = {
    consumers: {
      written: { secret: WRITTEN },
      environment: { secret: 'env:OF_ENVIRONMENT' },
      file: { secret: `file:${join(folder, 'secret')}` },
      keyed: { apiKeys: 'env:API_KEY' },
      person: { password: 'env:PASSWORD' },
      bearer: { jwt: { issuer: 'bearer' } },
    },
    jwt: { issuer: { issuer: 'issuer', audience: 'gateway', secrets: 'env:HMAC_KEY' } },
    services: {
      origin: {
        endpoints: [origin.url],
        tls: { ca, ...writePair(own, folder, 'own'), passphrase: 'env:PASSPHRASE' },
        health: { interval: '1s', timeout: '1s' },
        breaker: {},
      },
    },
    routes: [
      {
        match: { path: '/' },
        service: 'origin',
        auth: ['x-m', 'api-key', 'basic', 'jwt'],
        limits: [{ by: 'consumer', rate: '1000/s' }],
      },
    ],
    tls: { certificates: [{ ...writePair(site, folder, 'site'), passphrase: 'env:PASSPHRASE' }] },
  }
  secrets = [
    WRITTEN,
    FROM_ENVIRONMENT,
    FROM_FILE,
    PASSPHRASE,
    API_KEY,
    PASSWORD,
    HMAC_KEY,
    ...[site, own].flatMap(({ key }) => [...linesOf(key), ...linesOf(opened(key))]),
  ]
  const before = process.umask(0)
  try {
    gateway = await startGateway({
      config,
      env: {
        ...env,
        TIDEGATE_LOG_LEVEL: 'trace',
        TIDEGATE_ACCESS_LOG: join(folder, 'access.log'),
        // In a thread Node warns, on stderr, of the descriptor of the state: it was opened by Node and closed by the
        // addon.
        TIDEGATE_STATE: THREADS ? 'none' : join(folder, 'state'),
      },
    })
  } finally {
    process.umask(before)
  }

  const tls = { ca: authority.cert, servername: 'site.test' }
  const bodies: string[] = []
  for (const [source, secret] of Object.entries({ written: WRITTEN, environment: FROM_ENVIRONMENT, file: FROM_FILE })) {
    const headers = signedHeaders({ source, secret }, { method: 'GET', target: '/' })
    const good = await call(gateway.port, { headers }, tls)
    const bad = await call(gateway.port, { headers: { ...headers, 'x-m': '0'.repeat(64) } }, tls)
    expect([good.status, bad.status]).toEqual([200, 401])
    bodies.push(JSON.stringify([bad.fields, bad.text]))
  }
  const basic = (password: string) => `Basic ${Buffer.from(`person:${password}`).toString('base64')}`
  const others: [header: string, good: string, bad: string][] = [
    ['x-api-key', API_KEY, `${API_KEY}x`],
    ['authorization', basic(PASSWORD), basic(`${PASSWORD}x`)],
  ]
  for (const [name, right, wrong] of others) {
    const good = await call(gateway.port, { headers: { [name]: right } }, tls)
    const bad = await call(gateway.port, { headers: { [name]: wrong } }, tls)
    expect([good.status, bad.status]).toEqual([200, 401])
    bodies.push(JSON.stringify([bad.fields, bad.text]))
    secrets.push(right, wrong)
  }
  const garbage = await Connection.open(gateway.port, '127.0.0.1', tls)
  await garbage.write('GET / HTTP/9\r\n\r\n')
  bodies.push(String(await garbage.reader.some()))
  garbage.destroy()
  await gateway.log.find(({ msg }) => msg === 'endpoint is up', 'endpoint is up')
  // A renewal that fails is told of.
  writeFileSync(join(folder, 'site.pem'), upstream.cert)
  await gateway.log.find(({ msg }) => msg.startsWith('certificates cannot be used'), 'an error')

  found.answers = bodies.join('\n')
  found['/status'] = (await gateway.admin('/status')).text
  found['/metrics'] = (await gateway.admin('/metrics')).text
  found['command lines'] = commandLines(gateway.command.child.pid!)
  found.state = THREADS ? 'none, in threads' : readFileSync(join(folder, 'state'), 'latin1')
  for (const command of ['check', 'routes']) {
    const run = await runCommand([command, gateway.configFile], { ...cleanEnvironment(), ...env })
    found[`tidegate ${command}`] = run.stdout.text + run.stderr.text
  }
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

function opened(key: string): string {
  return createPrivateKey({ key, passphrase: PASSPHRASE }).export({ type: 'pkcs8', format: 'pem' }) as string
}

/** Of a key's text those that are its own. */
function linesOf(pem: string): string[] {
  return pem.split('\n').filter((line) => line.length >= 40 && !line.startsWith('-----'))
}

/** What a core file may be named after: of the process and of all below it. */
function commandLines(pid: number): string {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean)
  const own = ['cmdline', 'comm'].map((name) => readFileSync(`/proc/${pid}/${name}`, 'utf8'))
  return [...own, ...children.map((child) => commandLines(Number(child)))].join('\n')
}

describe('no secret is in', () => {
  test.each(['answers', '/status', '/metrics', 'command lines', 'state', 'tidegate check', 'tidegate routes'])(
    '%s',
    (where) => {
      expect(found[where]!.length).toBeGreaterThan(10)
      expect(secrets.filter((secret) => found[where]!.includes(secret))).toEqual([])
    },
  )

  test('the logs, at their most talkative', () => {
    const { stdout, stderr } = gateway.command
    const logs = stdout.text + stderr.text + readFileSync(join(folder, 'access.log'), 'utf8')
    expect(logs).toContain('x-m does not match')
    expect(secrets.filter((secret) => logs.includes(secret))).toEqual([])
  })

  test('what is said of a configuration that is wrong around them', async () => {
    const broken = {
      ...config,
      consumers: { written: { secrets: WRITTEN }, other: { secret: [WRITTEN, 5] }, long: { secret: { a: FROM_FILE } } },
      tls: { certificates: [{ cert: join(folder, 'ca.pem'), key: join(folder, 'own.key'), passphrase: WRITTEN }] },
    }
    const file = join(folder, 'broken.yaml')
    for (const text of [
      JSON.stringify(broken, null, 1),
      `${JSON.stringify(broken)}}`,
      `a: "${WRITTEN}\nb: ${FROM_FILE}`,
    ]) {
      writeFileSync(file, text)
      const run = await runCommand(['check', file], { ...cleanEnvironment(), ...env })
      expect(run.code).toBe(2)
      expect(secrets.filter((secret) => (run.stdout.text + run.stderr.text).includes(secret))).toEqual([])
    }
  })
})

describe('with a umask of 0', () => {
  test.skipIf(THREADS)('the state is for its owner alone', () => {
    expect(statSync(join(folder, 'state')).mode & 0o777).toBe(0o600)
  })

  test('nothing that was made is for everyone', () => {
    const made = readdirSync(folder).filter((name) => /^(state|access)/.test(name))
    expect(made.length).toBeGreaterThanOrEqual(THREADS ? 1 : 2)
    for (const name of made) expect([name, statSync(join(folder, name)).mode & 0o007]).toEqual([name, 0])
  })

  test.skipIf(THREADS)('files in memory have no name, and keys lie in no other', () => {
    const [worker] = readFileSync(
      `/proc/${gateway.command.child.pid}/task/${gateway.command.child.pid}/children`,
      'utf8',
    )
      .trim()
      .split(' ')
    const open = readdirSync(`/proc/${worker}/fd`).map((fd) => `/proc/${worker}/fd/${fd}`)
    const nameless = open.filter((path) => statSync(path, { throwIfNoEntry: false })?.nlink === 0)
    const holders = nameless.filter((path) => readFileSync(path, 'latin1').startsWith('-----BEGIN'))
    expect(holders).toHaveLength(2)
    for (const path of holders) expect(statSync(path).mode & 0o777).toBe(0o600)
  })
})
