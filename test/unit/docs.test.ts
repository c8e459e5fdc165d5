// What the documents say and a machine can check: tables, trees, links, configurations and examples are held equal to
// the code. The commands of the documents are run by test/e2e/docs.test.ts.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { withReference } from '../../scripts/reference.mjs'
import { describeConfig } from '../../src/cli/listings.js'
import { spellingWarnings } from '../../src/cli/spellings.js'
import { loadConfig } from '../../src/config/load.js'
import { jsonSchema } from '../../src/config/schema.js'
import { SETTINGS, settingsRows } from '../../src/config/settings.js'
import { OUTCOMES } from '../../src/exchange/outcome.js'
import { EMPTY_BODY_HASH, sign, signedBodyHash } from '../../src/policy/signature.js'
import { createAuthority } from '../support/certificates.js'
import { DOCUMENTS, type Fence, fences, isConfiguration, withEnvironment } from '../support/documents.js'
import { CLASSES, SERVED } from '../support/framing-cases.mjs'
import { temporaryFolder } from '../support/gateway.js'

const root = path.resolve(import.meta.dirname, '../..')
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8')
function outcomeRows(document: string): string[] {
  return [...read(document).matchAll(/^\| (\d{3}) \| `(\w+)` \|/gm)].map(([, status, code]) => `${status} ${code}`)
}

describe('outcomes', () => {
  const known = Object.entries(OUTCOMES).map(([code, { status }]) => `${status} ${code}`)

  it('are all in docs/errors.md, and no others', () => {
    expect(outcomeRows('docs/errors.md').sort()).toEqual(known.sort())
  })
})

describe('settings', () => {
  it('exist wherever a document names one', () => {
    const known = new Set([...Object.keys(SETTINGS), 'TIDEGATE_NATIVE'])
    for (const document of [...DOCUMENTS, 'Dockerfile']) {
      const named = read(document).match(/\bTIDEGATE_\w+/g) ?? []
      expect(
        named.filter((name) => !known.has(name) && !/^TIDEGATE_(TEST|FUZZ)_/.test(name)),
        document,
      ).toEqual([])
    }
  })
})

describe('the reference in docs/configuration.md', () => {
  it('is what the schema and the settings say; if not, run `npm run build && node scripts/reference.mjs`', () => {
    const page = read('docs/configuration.md')
    expect(page).toBe(withReference(page, jsonSchema(), settingsRows()))
  })
})

describe('the length of', () => {
  it.each([
    ['README.md', 150],
    ['ARCHITECTURE.md', 200],
  ])('%s is at most %i lines', (document, most) => {
    expect(read(document).trimEnd().split('\n').length).toBeLessThanOrEqual(most)
  })
})

describe('metrics', () => {
  it('are all in docs/metrics.md, and no others', () => {
    const files = readdirSync(path.join(root, 'src/telemetry')).filter((file) => file.endsWith('metrics.ts'))
    const code = files.map((file) => read(`src/telemetry/${file}`)).join('\n')
    const written = [...code.matchAll(/'(tidegate_[a-z_]+)'/g)].map(([, name]) => name)
    const documented = [...read('docs/metrics.md').matchAll(/^\| `(tidegate_[a-z_]+)` \|/gm)].map(([, name]) => name)
    expect(documented.sort()).toEqual([...new Set(written)].sort())
  })
})

describe('the keys of an access line', () => {
  it('are all in docs/operations.md, and no others', () => {
    const code = read('src/telemetry/access-log.ts')
    const written = [...code.matchAll(/"([a-z]+)":/gi)].map(([, key]) => key as string)
    const [, table = ''] = read('docs/operations.md').split('A line has only the keys that apply:')
    const documented = table
      .split('\n\n')[1]!
      .split('\n')
      .flatMap((row) => [...(row.split('|')[1] ?? '').matchAll(/`(\w+)`/g)].map(([, key]) => key as string))
    // Of pino's format: they are on the gateway's own lines, too.
    const ofPino = ['level', 'time']
    expect([...ofPino, ...documented].sort()).toEqual([...new Set(written)].sort())
  })
})

describe('configurations', () => {
  const written = DOCUMENTS.flatMap((document) =>
    fences(document)
      .filter(isConfiguration)
      .map((fence) => ({ ...fence, document })),
  )
  let folder = ''
  beforeAll(async () => {
    folder = temporaryFolder()
    // The files that docs/tls.md names.
    const authority = await createAuthority()
    const certs = path.join(folder, 'certs')
    mkdirSync(certs)
    const put = (cert: string, key: string, pair: { cert: string; key: string }) => {
      writeFileSync(path.join(certs, cert), pair.cert)
      writeFileSync(path.join(certs, key), pair.key)
    }
    put('site.pem', 'site.key', await authority.issue({ dns: ['localhost'] }))
    const passphrase = withEnvironment('env:KEY_PASSPHRASE').KEY_PASSPHRASE as string
    put('i.com.pem', 'i.com.key', await authority.issue({ dns: ['i.com', '*.i.com'], passphrase }))
    put('gateway.pem', 'gateway.key', await authority.issue({ cn: 'gateway' }))
    for (const ca of ['clients.pem', 'internal-ca.pem']) writeFileSync(path.join(certs, ca), authority.cert)
  })

  it.each(written)('of $document, line $line, are sound, and `tidegate check` warns of nothing', ({ text }) => {
    const file = path.join(folder, 'tidegate.yaml')
    writeFileSync(file, text)
    const loaded = loadConfig({ file, env: withEnvironment(text) })
    expect(describeConfig(loaded)).toMatch(/: sound \(/)
    expect(spellingWarnings(loaded)).toEqual([])
  })

  const questions = DOCUMENTS.filter((document) => document.startsWith('docs/'))
  it.each(questions)('begin %s, which asks a question and ends with what can go wrong', (document) => {
    const headings = read(document).match(/^#+ .*$/gm) as string[]
    expect(headings[0]).toMatch(/^# .*\?$/)
    const [first] = fences(document)
    expect(first !== undefined && isConfiguration(first)).toBe(true)
    if (document !== 'docs/limitations.md') expect(headings.at(-1)).toBe('## What can go wrong')
  })
})

describe('example configurations', () => {
  const examples = readdirSync(path.join(root, 'examples')).filter((name) => name.endsWith('.yaml'))

  it.each(examples)('%s is linked from README', (name) => {
    expect(read('README.md')).toContain(`(examples/${name})`)
  })
})

describe('the tree in ARCHITECTURE', () => {
  const SOURCE = /\.(ts|cc|h)$/

  /** Folders (with a slash behind them) and files, as paths. */
  function listed(): string[] {
    const tree = fences('ARCHITECTURE.md').find(({ text }) => text.startsWith('src/\n'))
    const folders: string[] = []
    return (tree as Fence).text.split('\n').flatMap((line) => {
      const match = /^( *)(\S+)/.exec(line)
      if (match === null) return []
      const [, indent, name] = match as unknown as [string, string, string]
      folders.length = indent.length / 2
      const full = folders.join('') + name
      if (name.endsWith('/')) folders.push(name)
      return [full]
    })
  }

  const sources = ['src', 'native'].flatMap((folder) =>
    readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => SOURCE.test(file) && !file.startsWith('build'))
      .map((file) => `${folder}/${file}`),
  )

  it('has every folder that holds source files, and no other', () => {
    const folders = new Set(['src/', ...sources.map((file) => `${path.dirname(file)}/`)])
    expect(
      listed()
        .filter((name) => name.endsWith('/'))
        .sort(),
    ).toEqual([...folders].sort())
  })

  it('names files that exist', () => {
    expect(listed().filter((name) => !name.endsWith('/') && !sources.includes(name))).toEqual([])
  })

  it('leaves it to each file to say where it stands, in its first line', () => {
    const silent = sources.filter((file) => !/^(#!.*\n)?\/\/ \S/.test(read(file)))
    expect(silent).toEqual([])
  })

  it('is what the prose and tables of documents name', () => {
    const missing = DOCUMENTS.flatMap((document) =>
      [
        ...read(document).matchAll(
          /`((?:native|src|cli|config|primary|worker|exchange|downstream|policy|handlers|upstream|state|telemetry)\/[\w/-]+\.(?:ts|cc|h))`/g,
        ),
      ]
        .map(([, file]) => file as string)
        .filter((file) => !existsSync(path.join(root, file)) && !existsSync(path.join(root, 'src', file))),
    )
    expect(missing).toEqual([])
  })
})

describe('the table of refused requests', () => {
  it('has a row for each class and each request that must be served', () => {
    const [table = ''] = read('docs/framing.md').split('<!-- end -->')
    const rows = [...table.matchAll(/^\| (.+?) \| (?:[\d, .]*) \|/gm)].map(([, name]) => name)
    expect(rows).toEqual([...CLASSES, ...SERVED].map(({ name }) => name))
  })

  it('says of Tidegate what the end-to-end suite holds it to', () => {
    for (const { name, status } of CLASSES) {
      const row = read('docs/framing.md')
        .split('\n')
        .find((line) => line.startsWith(`| ${name} |`))
      const said = row?.split('|')[4]?.match(/[a-z]+|\b\d{3}\b/g)
      expect(status.map(String), name).toEqual(expect.arrayContaining(said ?? ['no row']))
    }
  })
})

describe('links', () => {
  /** As GitHub makes them of headings. */
  const anchors = (file: string): string[] =>
    [...readFileSync(file, 'utf8').matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      (heading as string)
        .toLowerCase()
        .replace(/[^\p{L}\p{N} -]/gu, '')
        .replaceAll(' ', '-'),
    )

  it.each(DOCUMENTS)('of %s lead somewhere', (document) => {
    const broken = [...read(document).matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, target]) => target as string)
      .filter((target) => !/^https?:/.test(target))
      .filter((target) => {
        const [file, anchor] = target.split('#') as [string, string | undefined]
        const full = file === '' ? path.join(root, document) : path.join(root, path.dirname(document), file)
        return !existsSync(full) || (anchor !== undefined && !anchors(full).includes(anchor))
      })
    expect(broken).toEqual([])
  })
})

describe('commands', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> }

  it.each([...DOCUMENTS, 'Dockerfile'])('that %s runs with npm are in package.json', (document) => {
    const run = [...read(document).matchAll(/npm run (?:-\S+ )*([\w:-]+)/g)].map(([, name]) => name as string)
    expect(run.filter((name) => !(name in scripts))).toEqual([])
  })

  it.each(DOCUMENTS)('and options of tidegate that %s names exist', (document) => {
    const cli = read('src/cli/main.ts')
    const subcommands = [...cli.matchAll(/\.command\('(\w+)'\)/g)].map(([, name]) => name as string)
    const lines = fences(document)
      .filter(({ language }) => language === 'sh')
      .flatMap(({ text }) => text.split('\n'))
    const inline = [...read(document).matchAll(/`([^`\n]+)`/g)].map(([, code]) => code as string)
    for (const line of [...lines, ...inline]) {
      const call = /(?:npx tidegate|^tidegate) ([a-z]+)(.*)/.exec(line)
      if (call === null) continue
      const [, subcommand, rest] = call as unknown as [string, string, string]
      expect(subcommands, line).toContain(subcommand)
      const options = rest.match(/(?<= )--[a-z-]+/g) ?? []
      expect(
        options.filter((option) => !cli.includes(option)),
        line,
      ).toEqual([])
    }
  })
})

describe('signing examples', () => {
  const secret = 'demo-sécret'
  const time = '1700000000'
  const signer = { name: 'test', algorithm: 'sha256', signs: 'request' } as const
  const target = '/a/b%20c?q=%C3%A4&x=1%2F2'
  /** UTF-8, bytes that are no UTF-8, a zero and blanks at the end. */
  const body = Buffer.from([0x67, 0x72, 0xc3, 0xbc, 0xc3, 0x9f, 0x65, 0x20, 0xff, 0xfe, 0x00, 0x20, 0x0a])
  const programs = [
    { file: 'sign.mjs', command: [process.execPath], tools: [] },
    { file: 'sign.py', command: ['python3'], tools: ['python3'] },
    { file: 'sign.sh', command: ['sh'], tools: ['sh', 'openssl'] },
    { file: 'sign.go', command: ['go', 'run'], tools: ['go'] },
  ]
  let folder = ''
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), 'tidegate-docs-'))
    writeFileSync(path.join(folder, 'body'), body)
  })
  afterAll(() => rmSync(folder, { recursive: true }))

  const installed = (tool: string): boolean => spawnSync('sh', ['-c', `command -v ${tool}`]).status === 0

  for (const { file, command, tools } of programs) {
    // Skipped only where the language itself is not there.
    it.skipIf(!tools.every(installed)).each([
      { method: 'POST', url: target, withBody: true },
      { method: 'GET', url: target, withBody: false },
      { method: 'GET', url: '', withBody: false },
    ])(`${file} signs $method $url as the gateway does`, { timeout: 60_000 }, ({ method, url, withBody }) => {
      const words = [path.join(root, 'examples/signing', file), '--headers', method, `http://127.0.0.1:8080${url}`]
      if (withBody) words.push(path.join(folder, 'body'))
      const [program, ...first] = command as [string, ...string[]]
      const headers = execFileSync(program, [...first, ...words], {
        encoding: 'utf8',
        env: { ...process.env, X_SOURCE: 'test', X_SECRET: secret, X_TIME: time },
      })
      const bodyHash = withBody ? signedBodyHash(true, body) : EMPTY_BODY_HASH
      const mac = sign(signer, secret, time, method, url === '' ? '/' : url, bodyHash)
      expect(headers).toBe(`x-source: test\nx-time: ${time}\nx-m: ${mac}\n`)
    })
  }

  it.each([
    ['sh', 'sign.sh'],
    ['js', 'sign.mjs'],
    ['python', 'sign.py'],
    ['go', 'sign.go'],
  ])('in docs/signing.md (%s) are cut out of examples/signing/%s', (language, file) => {
    const program = read(`examples/signing/${file}`)
    const section = read('docs/signing.md')
      .split(/^## /m)
      .find((part) => part.startsWith('In your language\n')) as string
    const block = new RegExp(`^\`\`\`${language}\\n([\\s\\S]*?)^\`\`\`$`, 'm').exec(section)?.[1]
    expect(program.includes(block ?? 'no block'), `${file} does not contain:\n${block}`).toBe(true)
  })

  it('have the vectors of docs/signing.md', () => {
    const rows = [
      ...read('docs/signing.md').matchAll(/^\| `([A-Z]+) (\S+)` \| (?:`(.*)`|none) \| `([0-9a-f]{64})` \|$/gm),
    ]
    expect(rows.length).toBeGreaterThan(2)
    for (const [row, method, url, text, mac] of rows as unknown as [
      string,
      string,
      string,
      string | undefined,
      string,
    ][]) {
      const bodyHash = signedBodyHash(true, text === undefined ? null : Buffer.from(text))
      expect(mac, row).toBe(sign(signer, 'demo-secret-of-test', time, method, url, bodyHash))
    }
  })
})
