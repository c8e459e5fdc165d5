// The commands of the documents, run as they stand: each page's own configuration is served on free ports, and its
// blocks go to a shell one after the other. A block that cannot run here says so in its first line; npm's commands are
// run by .ci/run.
import { execFile } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { DOCUMENTS, type Fence, fences, isConfiguration, withEnvironment } from '../support/documents.js'
import { cleanEnvironment, type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { refusingPort, startEcho } from '../support/origins.js'

const root = path.resolve(import.meta.dirname, '../..')
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8')
const run = promisify(execFile)

/** What the blocks of a document print, besides ending well. */
const PRINTED: Readonly<Record<string, readonly RegExp[]>> = {
  'README.md': [/^curl .*'x-m: [0-9a-f]{64}'/m, /: sound \(1 route, 1 service, 1 consumer\)/, /^HOST +PATH/m],
  'SECURITY.md': [/^[0-9a-f]{64} .*uws\.node$/m],
  'docs/authentication.md': [/^sha256:[0-9a-f]{64}$/m, /^\$scrypt\$/m, /^signature-input: /im],
  'docs/canary.md': [/orders 95%, orders-next 5%, by consumer +shadow 10%/],
  'docs/configuration.md': [/: sound \(/, /^HOST +PATH/m, /^nothing changes$/m, /^sha256:/m],
  'docs/deadlines.md': [/"x-timeout-ms","2\d{3}"/],
  'docs/draining.md': [/"drain":"on"/, /"drained": \[\s+\{/, /"drain":"off"/],
  'docs/errors.md': [/^HTTP\/1\.1 502 /m, /"code":"upstream_error"/],
  'docs/limitations.md': [/: sound \(/, /"isolation"/],
  'docs/limits-and-breakers.md': [/"hold":"open"/, /"hold":"none"/],
  'docs/metrics.md': [/tidegate_workers\{/, /"breakers"/],
  'docs/partial-failure.md': [/"ejections"/],
  'docs/operations.md': [/"ok": true/, /"reopened":true/],
  'docs/simulate.md': [/1 of 3 requests \(33\.3 %\) would end differently/, /^ {2}plan +1 → 2 +192\.0\.2\.1 1 → 2/m],
  'docs/signing.md': [/^x-m: [0-9a-f]{64}$/m, /^200 [0-9a-f]{32}$/m, /HTTP\/1\.1 200 OK/, /6c6ac6b6ddcaeed3/],
  'docs/tls.md': [],
}
/** Nothing listens where their service should be. */
const WITHOUT_SERVICE = new Set(['docs/errors.md'])
const OWN_GATEWAY = new Set(['docs/deadlines.md', 'docs/errors.md', 'docs/signing.md'])

const isShown = ({ text }: Fence): boolean => text.startsWith('# Not run by the tests')
const isNpm = ({ text }: Fence): boolean =>
  text.split('\n').every((line) => line === '' || /^npm (install|start|test)\b/.test(line))
const isExample = ({ text }: Fence): boolean => read('examples/signing/sign.sh').includes(text)
const configurationOf = (document: string): string => fences(document).find(isConfiguration)?.text ?? ''
const commands = (document: string): Fence[] =>
  fences(document).filter((fence) => fence.language === 'sh' && !isShown(fence) && !isNpm(fence) && !isExample(fence))

const closing: (() => Promise<unknown>)[] = []
afterAll(() => Promise.all(closing.map((close) => close())))

/** A checkout to run commands in: the files of this one, and `npx` without its search for packages. */
function checkout(configuration: string): string {
  const folder = temporaryFolder()
  for (const name of ['bin', 'dist', 'examples', 'native', 'package.json'])
    symlinkSync(path.join(root, name), path.join(folder, name))
  mkdirSync(path.join(folder, 'path'))
  const npx = path.join(folder, 'path/npx')
  writeFileSync(
    npx,
    `#!/bin/sh\n[ "$1" = tidegate ] && shift && exec ${process.execPath} bin/tidegate.js "$@"\nexit 1\n`,
  )
  chmodSync(npx, 0o755)
  writeFileSync(path.join(folder, 'tidegate.yaml'), configuration)
  return folder
}

function installed(program: string): boolean {
  return (process.env.PATH ?? '').split(':').some((folder) => {
    try {
      return readdirSync(folder).includes(program)
    } catch {
      return false
    }
  })
}

/** Without what a machine lacks, unless the tests require all. */
function possible(text: string): string {
  if (process.env.TIDEGATE_TEST_REQUIRE === 'all') return text
  return text.replace(/^(go|python3) .*$/gm, (line, program: string) => (installed(program) ? line : ''))
}

const running = new Map<string, Promise<Gateway>>()

/** A gateway costs a second: pages that need nothing in particular have one together. */
function gatewayFor(document: string): Promise<Gateway> {
  const page = OWN_GATEWAY.has(document) ? document : 'docs/limits-and-breakers.md'
  const gateway = running.get(page) ?? startFor(page)
  running.set(page, gateway)
  return gateway
}

async function startFor(document: string): Promise<Gateway> {
  const configuration = configurationOf(document)
  const origin = await startEcho()
  closing.push(() => origin.close())
  const port = WITHOUT_SERVICE.has(document) ? await refusingPort() : origin.port
  const config = parse(configuration.replaceAll('127.0.0.1:9000', `127.0.0.1:${port}`)) as object
  const gateway = await startGateway({ config, workers: 1, env: withEnvironment(configuration) })
  closing.push(() => gateway.close())
  return gateway
}

describe('the commands of', () => {
  const documents = DOCUMENTS.filter((document) => commands(document).length > 0)

  it.concurrent.each(documents)('%s run', { timeout: 60_000 }, async (document) => {
    const configuration = configurationOf(document)
    const env = withEnvironment(configuration)
    let script = commands(document)
      .map(({ text }) => possible(text))
      .join('\n')
    if (/^curl |examples\/signing/m.test(script)) {
      const gateway = await gatewayFor(document)
      script = script.replaceAll('127.0.0.1:8080', `127.0.0.1:${gateway.port}`)
      script = script.replaceAll('127.0.0.1:9901', `127.0.0.1:${gateway.adminPort}`)
    }
    // What SECURITY.md looks for is in this checkout alone.
    const cwd = document === 'SECURITY.md' ? root : checkout(configuration)
    const { stdout } = await run('sh', ['-eu', '-c', script], {
      cwd,
      env: { ...cleanEnvironment(env), PATH: `${cwd}/path:${process.env.PATH}` },
      maxBuffer: 16 * 2 ** 20,
    })
    expect(Object.keys(PRINTED)).toContain(document)
    for (const printed of PRINTED[document] ?? []) expect(stdout).toMatch(printed)
  })

  it('npm that a document shows are run by .ci/run', () => {
    const shown = DOCUMENTS.flatMap((document) => fences(document).filter(isNpm))
    const words = new Set(shown.flatMap(({ text }) => text.match(/npm \w+/g) ?? []))
    expect([...words].filter((word) => !read('.ci/run').includes(word))).toEqual([])
  })
})
