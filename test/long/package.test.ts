// The package as npm sees it: packed and installed elsewhere, and in a checkout that nobody has built yet. Needs the
// registry.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { temporaryFolder } from '../support/gateway.js'
import { requireTool } from '../support/requirements.js'

const root = resolve(import.meta.dirname, '../..')
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string }

/** Without what npm tells those it has started, and without the addon, which is not what this is about. */
const env: Record<string, string | undefined> = {
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(npm_|TIDEGATE_|NODE_)/i.test(name))),
  TIDEGATE_NATIVE: 'skip',
}

function run(folder: string, command: string, more: Record<string, string> = {}) {
  const { status, stdout, stderr } = spawnSync('sh', ['-c', command], {
    cwd: folder,
    encoding: 'utf8',
    env: { ...env, ...more },
  })
  return { status, stdout, stderr }
}

beforeEach((context) => requireTool(context, 'git'))

test('packed and installed in an empty folder, npx finds the command', () => {
  const folder = temporaryFolder()
  expect(run(root, `npm pack --silent --pack-destination ${folder}`).status).toBe(0)
  const [archive] = readdirSync(folder)
  writeFileSync(join(folder, 'package.json'), '{ "private": true }')
  expect(run(folder, `npm install --no-audit --no-fund --prefer-offline ./${archive}`)).toMatchObject({ status: 0 })
  expect(run(folder, 'npx --no-install tidegate --version')).toMatchObject({ status: 0, stdout: `${version}\n` })
  expect(run(folder, 'npx --no-install tidegate check nothing.yaml').status).toBe(2)
  expect(existsSync(join(folder, 'node_modules/tidegate/dist/src/worker/process.js'))).toBe(true)
}, 120_000)

test('in a checkout npx says what is missing before it is installed, and finds the command after', () => {
  const folder = temporaryFolder()
  const clone = join(folder, 'clone')
  execFileSync('git', ['clone', '--quiet', root, clone])
  // Where npx keeps what it has linked: it would go on to use that.
  const npx = 'npx --yes --prefer-offline tidegate --version'
  const cache = { npm_config_cache: join(folder, 'cache') }
  const unbuilt = run(clone, npx, cache)
  expect(unbuilt).toMatchObject({ status: 2, stdout: '' })
  expect(unbuilt.stderr).toContain(`error: tidegate is not built: run \`npm install && npm run build\` in ${clone}/`)
  expect(run(clone, 'npm install --no-audit --no-fund --prefer-offline')).toMatchObject({ status: 0 })
  expect(run(clone, npx, cache)).toMatchObject({ status: 0, stdout: `${version}\n` })
}, 180_000)
