// Builds the addon with AddressSanitizer and UndefinedBehaviorSanitizer and walks through it (test/native/exercise.mjs), then its parsers under
// random input (test/native/parsers.cc; its seed is printed, and can be given as an argument). Any report fails. Wants g++ or clang++ with the sanitizers' libraries, and headers, for which the ordinary build is asked.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const build = join(root, 'native', 'build')
const folder = join(build, 'Sanitized')
const addon = join(folder, 'tidegate.node')
const compiler = process.env.CXX ?? 'g++'

function fail(why) {
  console.error(`tidegate: sanitized native test failed: ${why}`)
  process.exit(1)
}

function run(command, args, env = {}) {
  const { error, status, signal, stdout, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    env: { ...process.env, ...env },
    timeout: 120_000,
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
const sources = readdirSync(source).filter((name) => name.endsWith('.cc'))
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
const result = run(process.execPath, ['--expose-gc', join(root, 'test', 'native', 'exercise.mjs'), addon], {
  LD_PRELOAD: `${library('libasan.so')} ${library('libubsan.so')}`,
  ASAN_OPTIONS: 'detect_leaks=1:malloc_context_size=2:abort_on_error=0:exitcode=99:detect_stack_use_after_return=1',
  LSAN_OPTIONS: `suppressions=${suppressions}:print_suppressions=0`,
  UBSAN_OPTIONS: 'print_stacktrace=1:halt_on_error=1',
})
if (result.failed || /runtime error:|Sanitizer/.test(result.output)) fail(`${result.how}\n${result.output}`)
if (!result.output.includes('every function exercised')) fail(`it ended early\n${result.output}`)

const ROUNDS = '300000'
const seed = process.argv[2] ?? String(Date.now())
const parsers = join(folder, 'parsers')
const built = run(compiler, [...sanitized, '-o', parsers, join(root, 'test', 'native', 'parsers.cc')])
if (built.failed) fail(built.output)
const fuzzed = run(parsers, [ROUNDS, seed])
if (fuzzed.failed) fail(`parsers, seed ${seed}: ${fuzzed.how}\n${fuzzed.output}`)
console.log(`tidegate: ${fuzzed.output.trim()}, seed ${seed}`)
console.log('tidegate: native addon clean under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer')
