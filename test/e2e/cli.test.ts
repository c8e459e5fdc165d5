import { execFile, spawnSync } from 'node:child_process'
import { createHash, createHmac, scryptSync } from 'node:crypto'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { describe, expect, test } from 'vitest'

const CLI = path.resolve('dist/src/cli/main.js')

interface Result {
  code: number
  out: string
  err: string
}

/** With nothing of our own environment but PATH, so that no TIDEGATE_ variable leaks in. */
function tidegate(args: string[], env: Record<string, string> = {}, cwd = process.cwd()): Promise<Result> {
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [CLI, ...args],
      { cwd, env: { PATH: process.env.PATH ?? '', ...env } },
      (error, out, err) => {
        resolve({ code: error === null ? 0 : (error.code as number), out, err })
      },
    )
  })
}

function configFile(yaml: string): { dir: string; file: string } {
  const dir = mkdtempSync(path.join(os.tmpdir(), 'tidegate-cli-'))
  writeFileSync(path.join(dir, 'tidegate.yaml'), yaml)
  return { dir, file: path.join(dir, 'tidegate.yaml') }
}

const SOUND = `consumers: { test: { secret: env:TEST_SECRET, algorithm: sha1 } }
services: { demo: { endpoints: ['http://127.0.0.1:9000'] } }
routes:
  - { match: { path: / }, service: demo, auth: none }
  - { match: { host: demo.i.com, exactPath: /a, methods: [GET, POST] }, service: demo, auth: x-m, allow: [test], name: a, limits: [{ by: consumer, rate: 1/s }] }
  - { match: { host: '*.i.com', path: '/b/:c' }, service: demo, auth: x-m, priority: 7 }
`

test('without a command, help and exit code 2; --help and --version are no mistakes', async () => {
  const bare = await tidegate([])
  expect(bare).toMatchObject({ code: 2, out: '' })
  expect(bare.err).toContain('Usage: tidegate')
  const help = await tidegate(['--help'])
  expect(help).toMatchObject({ code: 0, err: '' })
  for (const word of ['start', 'check', 'routes', 'schema', 'hash', 'sign', 'Examples:'])
    expect(help.out).toContain(word)
  const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string }
  expect(await tidegate(['--version'])).toEqual({ code: 0, out: `${version}\n`, err: '' })
})

test.each([
  ['an unknown command', ['chekc'], "error: unknown command 'chekc'\n(Did you mean check?)\n"],
  ['an unknown option', ['check', '--jsn'], "error: unknown option '--jsn'\n"],
  ['a missing option', ['sign', '--consumer', 'c'], "error: required option '--url <url>' not specified\n"],
  ['nobody who signs', ['sign', '--url', 'http://h'], "error: required option '--consumer <name>' not specified\n"],
  [
    'a keyid without a key',
    ['sign', '--key-id', 'k', '--url', 'http://h'],
    "error: required option '--key <key>' not specified\n",
  ],
  [
    'a key that is none',
    ['sign', '--key-id', 'k', '--key', '-----BEGIN', '--url', 'http://h'],
    'error: --key: is no PEM private key\n',
  ],
  ['a demo of a file', ['start', '--demo', 'x.yaml'], 'error: --demo takes no file\n'],
  [
    'a URL that is none',
    ['sign', '--consumer', 'c', '--secret', 's', '--url', 'h:1/'],
    'error: --url: "h:1/" is not an http:// or https:// URL\n',
  ],
  [
    'a secret that is not set',
    ['sign', '--consumer', 'c', '--secret', 'env:NOPE', '--url', 'http://h'],
    'error: --secret: the environment variable NOPE is not set\n',
  ],
  [
    'a body file that is not there',
    ['sign', '--consumer', 'c', '--secret', 's', '--url', 'http://h', '--data-file', 'no/such'],
    'error: --data-file: no/such cannot be read (ENOENT)\n',
  ],
])('%s ends with 2 and says so', async (_name, args, err) => {
  expect(await tidegate(args)).toEqual({ code: 2, out: '', err })
})

describe('check', () => {
  test('says what a sound configuration holds, found by argument, by environment or by its usual name', async () => {
    const { dir, file } = configFile(SOUND)
    const env = { TEST_SECRET: 'long-enough-secret' }
    const holds = 'sound (3 routes, 1 service, 1 consumer)\n'
    expect(await tidegate(['check', file], env)).toMatchObject({ code: 0, out: `${file}: ${holds}` })
    expect(await tidegate(['check'], { ...env, TIDEGATE_CONFIG: file })).toMatchObject({
      code: 0,
      out: `${file}: ${holds}`,
    })
    expect(await tidegate(['check'], env, dir)).toMatchObject({ code: 0, out: `tidegate.yaml: ${holds}` })
  })

  test('warns of guarded paths that fall to an open route in another spelling, and not of what is closed', async () => {
    const { dir, file } = configFile(SOUND)
    const env = { TEST_SECRET: 'long-enough-secret' }
    const warned = (at: string, routes: string, spelled: string, remedy: string) =>
      `warning: tidegate.yaml:${at}: ${routes} is guarded, but ${spelled}, which is open; if its service takes that for the same path, add ${remedy}\n`
    const case_ = 'match.caseInsensitive: true'
    expect((await tidegate(['check'], env, dir)).err).toBe(
      warned(
        '5:5',
        'routes[1] ("/a")',
        '"/A" falls to routes[0] ("/"), and "/a/" falls to routes[0] ("/")',
        `${case_} and match.trailingSlash: ignore`,
      ) + warned('6:5', 'routes[2] ("/b/:c")', '"/B/X" falls to routes[0] ("/")', case_),
    )
    writeFileSync(
      file,
      SOUND.replace('exactPath: /a,', 'exactPath: /a, caseInsensitive: true, trailingSlash: ignore,').replace(
        "path: '/b/:c'",
        "path: '/b/:c', caseInsensitive: true",
      ),
    )
    expect((await tidegate(['check'], env, dir)).err).toBe('')
    expect((await tidegate(['routes'], env, dir)).out).toMatch(/=\/a\[\/\] \(any case\).*\n.*\/b\/:c \(any case\)/)
    // Below an open prefix the last segment alone may be spelled otherwise.
    writeFileSync(file, SOUND.replace('path: / }', 'path: /c }').replace('exactPath: /a,', 'path: /c/admin,'))
    expect((await tidegate(['check'], env, dir)).err).toBe(
      warned('5:5', 'routes[1] ("/c/admin")', '"/c/ADMIN" falls to routes[0] ("/c")', case_),
    )
    // An address list guards as well as credentials do, also a catch-all.
    // An address list guards as well as credentials do, also a catch-all.
    writeFileSync(file, SOUND.replace('auth: none', 'auth: none, addresses: { allow: [10.0.0.0/8] }'))
    expect((await tidegate(['check'], env, dir)).err).toBe('')
  })

  test('ends with 2 and one line for each problem, without colours in a pipe', async () => {
    const { dir } = configFile(SOUND.replace('service: demo, auth: none', 'servce: demo, auth: none'))
    expect(await tidegate(['check'], { TIDEGATE_PROT: '80' }, dir)).toEqual({
      code: 2,
      out: '',
      err: `error: TIDEGATE_PROT: no such setting; did you mean TIDEGATE_PORT?
error: tidegate.yaml:4:5: routes[0]: needs service, or split
error: tidegate.yaml:4:27: routes[0].servce: unknown key; did you mean "service"?
`,
    })
  })

  test('a missing file says how to get one, for start as well', async () => {
    const { dir } = configFile('')
    for (const command of ['check', 'start', 'routes']) {
      const { code, out, err } = await tidegate([command, 'nope.yaml'], {}, dir)
      expect({ code, out }).toEqual({ code: 2, out: '' })
      expect(err).toMatch(/^error: nope\.yaml: no such file\n/)
      expect(err).toContain('tidegate start --demo')
      // What it tells people to write must be right.
      const yaml = /(^ {2}services:[\s\S]*?)\n\n/m.exec(err)?.[1]?.replace(/^ {2}/gm, '')
      expect((await tidegate(['check', configFile(yaml as string).file])).code).toBe(0)
    }
  })
})

describe('routes', () => {
  test('prints the table in the order of precedence, in aligned columns', async () => {
    const { file } = configFile(SOUND)
    expect(await tidegate(['routes', file], { TEST_SECRET: 'long-enough-secret' })).toEqual({
      code: 0,
      err: '',
      out: `HOST        PATH   METHODS   PRIORITY  NAME          SERVICE  AUTH                LIMITS
demo.i.com  =/a    GET,POST  0         a             demo     x-m (test)          a#0
*.i.com     /b/:c  *         7         *.i.com/b/:c  demo     x-m (any consumer)
*           /      *         0         /             demo     none
`,
    })
  })

  test('--json has the same rows', async () => {
    const { file } = configFile(SOUND)
    const { code, out } = await tidegate(['routes', file, '--json'], { TEST_SECRET: 'long-enough-secret' })
    expect(code).toBe(0)
    expect((JSON.parse(out) as { name: string }[]).map((row) => row.name)).toEqual(['a', '*.i.com/b/:c', '/'])
  })
})

describe('hash', () => {
  const hashed = (use: string, secret: string) => {
    const result = spawnSync(process.execPath, [CLI, 'hash', '--for', use], { input: secret, encoding: 'utf8' })
    return { code: result.status, out: result.stdout.trimEnd(), err: result.stderr }
  }

  test('makes of a key or a password what the configuration keeps', () => {
    const key = 'a key of some length'
    expect(hashed('api-key', `${key}\n`)).toEqual({
      code: 0,
      out: `sha256:${createHash('sha256').update(key).digest('hex')}`,
      err: '',
    })
    const [, , , salt = '', kept = ''] = hashed('password', 'pass w\u00f6rd').out.split('$')
    expect(scryptSync('pass w\u00f6rd', Buffer.from(salt, 'base64'), 32, { N: 16384, r: 8, p: 5 })).toEqual(
      Buffer.from(kept, 'base64'),
    )
  })

  test('refuses nothing, and what is too short, without repeating it', () => {
    expect(hashed('password', '\n')).toEqual({ code: 2, out: '', err: 'error: standard input is empty\n' })
    expect(hashed('api-key', 'hunter2')).toEqual({
      code: 2,
      out: '',
      err: 'error: the secret is too short for an API key: 16 random characters at least\n',
    })
  })
})

test('schema prints a JSON Schema of the configuration', async () => {
  const { code, out } = await tidegate(['schema'])
  expect(code).toBe(0)
  expect(JSON.parse(out)).toMatchObject({
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    required: ['services', 'routes'],
    properties: { routes: { items: { required: ['match', 'auth'] } } },
  })
})

describe('sign', () => {
  const time = '1700000000'
  const url = 'http://127.0.0.1:8080/a?b=c'
  const bodyHash = (body: string) => createHash('sha256').update(body).digest('hex')
  const mac = (algorithm: string, secret: string, lines: string[]) =>
    createHmac(algorithm, secret).update(lines.join('\n')).digest('hex')
  const signed = (...args: string[]) =>
    tidegate(['sign', '--consumer', 'test', '--time', time, '--url', url, ...args], { S: 's3cret' })
  const headers = (digest: string) => `x-source: test\nx-time: ${time}\nx-m: ${digest}\n`

  test('prints the three headers, for each way of signing', async () => {
    const secret = ['--secret', 'env:S']
    const line = (method: string, last: string) => ['test', time, method, '/a?b=c', last]
    expect((await signed(...secret)).out).toBe(headers(mac('sha256', 's3cret', line('GET', bodyHash('')))))
    expect((await signed(...secret, '--data', 'é')).out).toBe(
      headers(mac('sha256', 's3cret', line('POST', bodyHash('é')))),
    )
    expect((await signed(...secret, '--method', 'PUT', '--data-file', 'package.json')).out).toBe(
      headers(mac('sha256', 's3cret', line('PUT', bodyHash(readFileSync('package.json', 'utf8'))))),
    )
    expect((await signed(...secret, '--unsigned-body', '--data', 'x')).out).toBe(
      headers(mac('sha256', 's3cret', line('POST', '-'))),
    )
    expect((await signed(...secret, '--legacy', '--algorithm', 'md5')).out).toBe(
      headers(mac('md5', 's3cret', ['test', time])),
    )
  })

  test("takes secret and algorithm from the consumer's entry in a configuration", async () => {
    const { file } = configFile(SOUND)
    const { out } = await tidegate(['sign', '-c', file, '--consumer', 'test', '--time', time, '--url', url], {
      TEST_SECRET: 'long-enough-secret',
    })
    expect(out).toBe(headers(mac('sha1', 'long-enough-secret', ['test', time, 'GET', '/a?b=c', bodyHash('')])))
    expect(
      await tidegate(['sign', '-c', file, '--consumer', 'tset', '--url', url], { TEST_SECRET: 'long-enough-secret' }),
    ).toEqual({
      code: 2,
      out: '',
      err: `error: --consumer: ${file} has no consumer "tset"\n`,
    })
  })

  test.each([
    ['GET', [], ''],
    ['DELETE', ['--method', 'DELETE', '-H', "x-odd: it's $HOME `id`"], ''],
    ['POST', ['--data', '@{\'a\': "b\\n"}\n&é'], '@{\'a\': "b\\n"}\n&é'],
    ['PATCH', ['-X', 'PATCH', '--data-file', 'tsconfig.json'], readFileSync('tsconfig.json', 'utf8')],
    ['HEAD', ['--method', 'HEAD'], ''],
  ])('--curl prints a command that a shell sends as it was signed: %s', async (method, args, body) => {
    let seen: { request: IncomingMessage; body: string } | null = null
    const server = createServer((request, response) => {
      const chunks: Buffer[] = []
      request.on('data', (chunk: Buffer) => chunks.push(chunk))
      request.on('end', () => {
        seen = { request, body: Buffer.concat(chunks).toString() }
        response.end()
      })
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const { port } = server.address() as AddressInfo
      const target = '/p{1,2}/[a-b]/x%20y?q=$1&r=é;z'
      const { out } = await tidegate([
        'sign',
        '--consumer',
        'test',
        '--secret',
        's',
        '--url',
        `http://127.0.0.1:${port}${target}#top`,
        '-H',
        'Host: demo.i.com',
        '--curl',
        ...args,
      ])
      await new Promise<void>((resolve, reject) => {
        execFile('sh', ['-c', out], (error) => (error === null ? resolve() : reject(error)))
      })
      const { request, body: sent } = seen as unknown as { request: IncomingMessage; body: string }
      expect(request.method).toBe(method)
      expect(request.headers.host).toBe('demo.i.com')
      expect(sent).toBe(body)
      if (method === 'DELETE') expect(request.headers['x-odd']).toBe("it's $HOME `id`")
      expect(request.headers['x-m']).toBe(
        mac('sha256', 's', [
          'test',
          request.headers['x-time'] as string,
          method,
          request.url as string,
          bodyHash(sent),
        ]),
      )
    } finally {
      server.close()
      server.closeAllConnections()
    }
  })
})
