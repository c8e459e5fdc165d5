// Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer and walks through it
// (test/native/exercise.mjs), then has gateways with it go through the tests of what it does on a request's way
// (END_TO_END), then its parsers under random input (test/native/parsers.cc; its seed is printed, and can be given as
// an argument). Any report fails. Wants g++ or clang++ with the sanitizers' libraries, and headers, for which the
// ordinary build is asked.
import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { stripVTControlCharacters } from 'node:util'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const build = join(root, 'native', 'build')
const folder = join(build, 'Sanitized')
const addon = join(folder, 'tidegate.node')
const compiler = process.env.CXX ?? 'g++'

function fail(why) {
  console.error(`tidegate: sanitized native test failed: ${why}`)
  process.exit(1)
}

function run(command, args, env = {}, cwd = root, timeout = 120_000) {
  const { error, status, signal, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    cwd,
    env: { ...process.env, ...env },
    timeout,
    maxBuffer: 2 ** 26,
  })
  if (error) fail(`${command}: ${error.message}`)
  return { failed: status !== 0, output: `${stdout}${stderr}`, how: signal ?? `exit code ${status}` }
}

/** node-gyp writes down where it took the headers from. */
function headers() {
  const config = join(build, 'config.gypi')
  if (!existsSync(config)) fail('build the addon first (npm rebuild)')
  const { variables } = JSON.parse(readFileSync(config, 'utf8').replace(/^#.*$/gm, ''))
  return join(variables.nodedir, 'include', 'node')
}

function library(name) {
  const file = run(compiler, [`-print-file-name=${name}`]).output.trim()
  if (!isAbsolute(file)) fail(`${compiler} has no ${name}`)
  return file
}

const source = join(root, 'native', 'src')
const sources = readdirSync(source, { recursive: true }).filter((name) => name.endsWith('.cc'))
mkdirSync(folder, { recursive: true })
const sanitized = [
  ...[
    '-std=c++17',
    '-O1',
    '-g',
    '-fno-omit-frame-pointer',
    '-fsanitize=address,undefined',
    '-fno-sanitize-recover=all',
  ],
  ...['-Wall', '-Wextra', '-Werror'],
]
const compiled = run(compiler, [
  ...[...sanitized, '-Wno-cast-function-type', '-fno-exceptions', '-fno-rtti', '-shared', '-fPIC'],
  ...['-DNAPI_VERSION=8', `-isystem${headers()}`, '-o', addon],
  ...sources.map((name) => join(source, name)),
])
if (compiled.failed) fail(compiled.output)

// node and V8 keep memory until the end on purpose. Two frames an allocation tell theirs from ours: who called malloc.
const suppressions = join(folder, 'leaks.txt')
writeFileSync(suppressions, `leak:${process.execPath}$\nleak:libstdc++\nleak:libc.so\n`)
const watched = {
  LD_PRELOAD: `${library('libasan.so')} ${library('libubsan.so')}`,
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
}
const asan = 'abort_on_error=0:exitcode=99:detect_stack_use_after_return=1'
const result = run(process.execPath, ['--expose-gc', join(root, 'test', 'native', 'exercise.mjs'), addon], {
  ...watched,
  ASAN_OPTIONS: `${asan}:detect_leaks=1:malloc_context_size=2`,
  LSAN_OPTIONS: `suppressions=${suppressions}:print_suppressions=0`,
})
if (result.failed || /runtime error:|Sanitizer/.test(result.output)) fail(`${result.how}\n${result.output}`)
if (!result.output.includes('every function exercised')) fail(`it ended early\n${result.output}`)

// A copy of the package in which that addon is the addon. Leaks are not asked for: a process that ends by exit() leaves
// everything.
const END_TO_END = [
  ...['framing', 'pipelining', 'http10', 'connections', 'refused-heads'].map((name) => `test/e2e/${name}.test.ts`),
  ...['test/contract/transport.test.ts', 'test/unit/native/wire.test.ts'],
]
const copy = join(folder, 'package')
const reports = join(folder, 'reports')
for (const each of [copy, reports]) rmSync(each, { recursive: true, force: true })
mkdirSync(join(copy, 'native', 'build', 'Release'), { recursive: true })
mkdirSync(reports)
for (const part of ['dist', 'src', 'test', 'native/index.ts', 'package.json', 'tsconfig.json', 'vitest.config.ts']) {
  cpSync(join(root, part), join(copy, part), { recursive: true })
}
cpSync(addon, join(copy, 'native', 'build', 'Release', 'tidegate.node'))
symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
// Freed memory is kept here, to see who still uses it.
const WITHOUT = '^(?!what was held of a connection takes no room)'
const vitest = [
  join(root, 'node_modules', 'vitest', 'vitest.mjs'),
  'run',
  '--testTimeout=60000',
  '-t',
  WITHOUT,
  ...END_TO_END,
]
const paths = { ASAN_OPTIONS: `${asan}:detect_leaks=0:log_path=${join(reports, 'asan')}` }
const endToEnd = run(process.execPath, vitest, { ...watched, ...paths }, copy, 240_000)
for (const name of readdirSync(reports)) fail(readFileSync(join(reports, name), 'utf8'))
if (endToEnd.failed) fail(`${endToEnd.how}\n${endToEnd.output}`)
const [, passed] = /(\d+) passed[^\n]*\n\s*Start/.exec(stripVTControlCharacters(endToEnd.output)) ?? []
if (passed === undefined) fail(endToEnd.output)
console.log(`tidegate: ${passed} tests of gateways and upstream connections`)

const ROUNDS = '300000'
const seed = process.argv[2] ?? String(Date.now())
const parsers = join(folder, 'parsers')
const built = run(compiler, [...sanitized, '-o', parsers, join(root, 'test', 'native', 'parsers.cc')])
if (built.failed) fail(built.output)
const fuzzed = run(parsers, [ROUNDS, seed])
if (fuzzed.failed) fail(`parsers, seed ${seed}: ${fuzzed.how}\n${fuzzed.output}`)
console.log(`tidegate: ${fuzzed.output.trim()}, seed ${seed}`)
console.log('tidegate: native addon clean under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer')
