// npm's `install` script: builds native/ with npm's own node-gyp. A gateway without the addon works, with threads for
// workers, so whatever is missing here costs one line and never the installation. TIDEGATE_NATIVE=skip leaves it out on
// purpose.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { createRequire } from 'node:module'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const native = join(dirname(dirname(fileURLToPath(import.meta.url))), 'native')
const binary = join(native, 'build', 'Release', 'tidegate.node')
const prefix = dirname(dirname(process.execPath))

/** Why the binary there will not do, or ''. */
function stale() {
  if (!existsSync(binary)) return 'missing'
  const sources = [
    join(native, 'binding.gyp'),
    ...readdirSync(join(native, 'src'), { recursive: true }).map((name) => join(native, 'src', name)),
  ]
  const built = statSync(binary).mtimeMs
  if (sources.some((file) => statSync(file).mtimeMs > built)) return 'older than its sources'
  try {
    createRequire(import.meta.url)(binary)
    return ''
  } catch {
    return 'made for another machine'
  }
}

function onPath(names) {
  const folders = (process.env.PATH ?? '').split(delimiter)
  return names.some((name) => folders.some((folder) => existsSync(join(folder, name))))
}

/** npm names its node-gyp to the scripts it runs; by hand, it is the one of the npm beside this node. */
function gyp() {
  const own = join(prefix, 'lib', 'node_modules', 'npm', 'node_modules', 'node-gyp', 'bin', 'node-gyp.js')
  const script = [process.env.npm_config_node_gyp, own].find((file) => file && existsSync(file))
  return script ? [process.execPath, script] : ['node-gyp']
}

/** Headers beside the running node spare a download; Node-API is the same in each, so another release's do as well. */
function nodedir() {
  const found = [process.env.npm_config_nodedir, prefix, '/usr', '/usr/local']
  return found.find((folder) => folder && existsSync(join(folder, 'include', 'node', 'node_api.h')))
}

function skipped(why) {
  console.log(`tidegate: native addon skipped, ${why}. Workers will be threads of one process instead of processes.`)
}

function build() {
  if (process.env.TIDEGATE_NATIVE === 'skip') return skipped('TIDEGATE_NATIVE=skip')
  if (process.platform !== 'linux') return skipped(`it needs Linux and this is ${process.platform}`)
  if (!stale()) return
  if (!onPath(['make', 'gmake'])) return skipped('there is no make')
  if (!process.env.CXX && !onPath(['g++', 'c++', 'clang++'])) return skipped('there is no C++ compiler')
  if (!process.env.PYTHON && !onPath(['python3', 'python'])) return skipped('node-gyp needs Python and there is none')

  const [command, ...args] = gyp()
  const headers = nodedir()
  // npm's own settings reach node-gyp as npm_config_*: a nodedir in there would win over ours.
  const run = spawnSync(
    command,
    [...args, 'rebuild', '-C', native, '--loglevel=error', ...(headers ? [`--nodedir=${headers}`] : [])],
    {
      encoding: 'utf8',
      env: { ...process.env, ...(headers ? { npm_config_nodedir: headers } : {}) },
    },
  )
  if (run.error) return skipped(`node-gyp does not start (${run.error.message})`)
  const problem = run.status === 0 ? stale() : reason(run.stderr + run.stdout)
  if (problem) return skipped(`the build failed: ${problem}`)
  console.log('tidegate: native addon built')
}

/** The one line of node-gyp's output that says what went wrong: the compiler's first error, else node-gyp's own. */
function reason(output) {
  const lines = output.split('\n').map((line) => line.trim())
  const first =
    lines.find((line) => /\berror:/.test(line)) ?? lines.find((line) => /gyp ERR! (stack )?\w*Error/.test(line))
  return (first ?? 'node-gyp said nothing').replace(/^gyp ERR! (stack )?/, '')
}

build()
