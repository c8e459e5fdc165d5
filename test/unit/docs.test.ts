// What the documents say and a machine can check: tables, trees, links, commands and examples are held equal to the code. README's
// configurations and its table of settings are checked where theirs are, in config/.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { SETTINGS } from '../../src/config/settings.js'
import { OUTCOMES } from '../../src/exchange/outcome.js'
import { EMPTY_BODY_HASH, sign, signedBodyHash } from '../../src/policy/signature.js'
import { CLASSES, SERVED } from '../support/framing-cases.mjs'

const root = path.resolve(import.meta.dirname, '../..')
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8')
const DOCUMENTS = [
  'README.md',
  'ARCHITECTURE.md',
  'CHANGELOG.md',
  'SECURITY.md',
  ...readdirSync(path.join(root, 'docs')).map((name) => `docs/${name}`),
]

interface Fence {
  readonly language: string
  readonly text: string
}

function fences(document: string): Fence[] {
  return [...read(document).matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(([, language, text]) => ({
    language: language as string,
    text: text as string,
  }))
}

function outcomeRows(document: string): string[] {
  return [...read(document).matchAll(/^\| (\d{3}) \| `(\w+)` \|/gm)].map(([, status, code]) => `${status} ${code}`)
}

describe('outcomes', () => {
  const known = Object.entries(OUTCOMES).map(([code, { status }]) => `${status} ${code}`)

  it.each(['README.md', 'ARCHITECTURE.md'])('are all in %s, and no others', (document) => {
    expect(outcomeRows(document).sort()).toEqual(known.sort())
  })
})

describe('settings', () => {
  it('exist wherever a document names one', () => {
    const known = new Set([...Object.keys(SETTINGS), 'TIDEGATE_NATIVE'])
    for (const document of [...DOCUMENTS, 'Dockerfile']) {
      const named = read(document).match(/\bTIDEGATE_\w+/g) ?? []
      expect(
        named.filter((name) => !known.has(name)),
        document,
      ).toEqual([])
    }
  })
})

describe('metrics', () => {
  it('are all in README, and no others', () => {
    const written = [...read('src/telemetry/metrics.ts').matchAll(/'(tidegate_[a-z_]+)'/g)].map(([, name]) => name)
    const documented = [...read('README.md').matchAll(/^\| `(tidegate_[a-z_]+)` \|/gm)].map(([, name]) => name)
    expect(documented.sort()).toEqual([...new Set(written)].sort())
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

  function listed(): string[] {
    const tree = fences('ARCHITECTURE.md').find(({ text }) => text.startsWith('src/\n'))
    const folders: string[] = []
    return (tree as Fence).text.split('\n').flatMap((line) => {
      const match = /^( *)(\S+)/.exec(line)
      if (match === null) return []
      const [, indent, name] = match as unknown as [string, string, string]
      folders.length = indent.length / 2
      if (!name.endsWith('/')) return [folders.join('') + name]
      folders.push(name)
      return []
    })
  }

  function sources(folder: string): string[] {
    return readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((file) => SOURCE.test(file) && !file.startsWith('build'))
      .map((file) => `${folder}/${file}`)
  }

  it('is the tree there is', () => {
    expect(listed().sort()).toEqual([...sources('src'), ...sources('native')].sort())
  })

  it('is what the prose and tables of documents name', () => {
    const missing = DOCUMENTS.flatMap((document) =>
      [...read(document).matchAll(/`((?:config|control|ingress|native|policy|proxy|state|telemetry)\/[\w-]+\.ts)`/g)]
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
      const call = /(?:npx tidegate|^tidegate|dist\/src\/cli\.js) ([a-z]+)(.*)/.exec(line)
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
  ])('in README (%s) are cut out of examples/signing/%s', (language, file) => {
    const program = read(`examples/signing/${file}`)
    const section = read('README.md')
      .split(/^## /m)
      .find((part) => part.startsWith('Signing\n')) as string
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
