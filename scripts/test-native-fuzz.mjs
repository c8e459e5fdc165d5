// Fuzzes the addon's parsers (native/fuzz/*.cc) with libFuzzer under AddressSanitizer and UndefinedBehaviorSanitizer,
// each for TIDEGATE_FUZZ_SECONDS. It begins with the requests of the framing tests, and with what earlier runs found
// worth keeping (native/build/Fuzz). Wants clang++ with compiler-rt; without it nothing is run and a line says so, with
// TIDEGATE_TEST_REQUIRE=all it is a failure.
import { spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CLASSES, SERVED } from '../test/support/framing-cases.mjs'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const source = join(root, 'native', 'fuzz')
const folder = join(root, 'native', 'build', 'Fuzz')
const compiler = process.env.CLANGXX ?? 'clang++'
const seconds = Number(process.env.TIDEGATE_FUZZ_SECONDS ?? 60)
/** Long enough for two heads and a body; longer ones are slower and find no more. */
const MOST_BYTES = 768

function end(code, why) {
  console.error(`tidegate: native fuzzing ${why}`)
  process.exit(code)
}

if (!(seconds > 0)) end(1, 'failed: TIDEGATE_FUZZ_SECONDS is no number of seconds')
if (spawnSync(compiler, ['--version']).status !== 0) {
  end(process.env.TIDEGATE_TEST_REQUIRE === 'all' ? 1 : 0, `skipped: ${compiler} is not installed`)
}

/** Over the limit of fuzz/framing.cc with the scheme and authority, which are not handed on; without them below it. */
const longAsSent = `GET http://${'a'.repeat(90)}/${'y'.repeat(392)} HTTP/1.1\r\nHost: a\r\n\r\n`
const requests = [...CLASSES.flatMap((one) => one.requests), ...SERVED.map(({ request }) => request), longAsSent]
const bodies = requests.map((request) => request.slice(request.indexOf('\r\n\r\n') + 4)).filter((body) => body !== '')
/** What stands before a request, or its body, in a target's input: native/fuzz says of what it decides. */
const PREFIXES = {
  chunks: ['\0', '\x01'],
  framing: ['\0\0', '\x01\0', '\x08\x01\x05'],
  http10: ['\x01'],
  proxy_protocol: [],
}

for (const file of readdirSync(source).filter((name) => name.endsWith('.cc'))) {
  const name = basename(file, '.cc')
  const program = join(folder, name)
  const corpus = join(folder, `${name}-corpus`)
  mkdirSync(corpus, { recursive: true })
  const seeds = (PREFIXES[name] ?? []).flatMap((prefix) =>
    (name === 'chunks' ? bodies : requests).map((seed) => prefix + seed),
  )
  for (const [i, seed] of seeds.entries()) {
    if (seed.length <= MOST_BYTES) writeFileSync(join(corpus, `seed-${i}`), Buffer.from(seed, 'latin1'))
  }
  const built = spawnSync(
    compiler,
    [
      ...['-std=c++17', '-O1', '-g', '-fsanitize=fuzzer,address,undefined', '-fno-sanitize-recover=all'],
      ...['-Wall', '-Wextra', '-Werror', '-o', program, join(source, file)],
    ],
    { encoding: 'utf8' },
  )
  if (built.status !== 0) end(1, `failed: ${file} does not build\n${built.stderr}`)
  const run = spawnSync(
    program,
    [
      ...[`-max_total_time=${seconds}`, `-max_len=${MOST_BYTES}`, '-timeout=10', `-dict=${join(source, 'http.dict')}`],
      ...[`-artifact_prefix=${join(folder, `${name}-`)}`, '-print_final_stats=1', corpus],
    ],
    { encoding: 'utf8', maxBuffer: 2 ** 28, timeout: (seconds + 120) * 1000 },
  )
  if (run.status !== 0) end(1, `failed: ${name}\n${run.stderr.split('\n').slice(-60).join('\n')}`)
  const executed = /number_of_executed_units: +(\d+)/.exec(run.stderr)?.[1]
  console.log(`tidegate: ${name}: ${executed} inputs in ${seconds} s, nothing found`)
}
