// Holds the tree to its rules (ARCHITECTURE.md): who may import what, where the environment is read, that every file
// says where it stands. Part of `npm run check`. Prints one line for each breach, with the file and the rule, and ends
// with 1.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))

/** What each folder with all below it may import besides itself. The order is the request's way. */
const LAYERS = {
  config: [],
  exchange: ['config'],
  state: ['config', 'exchange', 'native'],
  telemetry: ['config', 'exchange', 'state'],
  downstream: ['config', 'exchange', 'native'],
  policy: ['config', 'exchange', 'state', 'native'],
  upstream: ['config', 'exchange', 'state', 'native'],
  handlers: ['config', 'exchange', 'downstream', 'upstream', 'telemetry'],
  worker: ['config', 'exchange', 'state', 'telemetry', 'downstream', 'policy', 'upstream', 'handlers'],
  primary: ['config', 'exchange', 'state', 'telemetry', 'downstream', 'worker', 'native'],
  // The gateway's decisions over a recorded log: a worker without servers, clients and other processes.
  simulate: ['config', 'exchange', 'state', 'downstream', 'policy', 'upstream'],
  cli: ['config', 'exchange', 'policy', 'primary', 'worker', 'telemetry', 'downstream', 'simulate'],
}

/** A folder within a layer, and the only folders that may import from it. */
const INNER = { 'src/downstream/uws/': ['src/downstream/uws/', 'src/worker/'] }

/**
 * A dependency, and the only files, or folders, that may use it. A type import counts as use: it ties the file to the
 * thing.
 */
const OWNED = {
  'uWebSockets.js': ['src/downstream/uws/'],
  undici: ['src/upstream/'],
  piscina: ['src/policy/digest-pool.ts', 'src/policy/digest-worker.ts'],
  jose: ['src/policy/jwt-check.ts', 'src/policy/jwt-keys.ts', 'src/policy/key-set.ts'],
  'structured-headers': ['src/config/http-signature.ts', 'src/policy/', 'src/cli/sign-message.ts'],
  commander: ['src/cli/main.ts'],
  yaml: ['src/config/load.ts'],
  zod: ['src/config/'],
  pino: ['src/telemetry/log.ts'],
  'sonic-boom': ['src/telemetry/'],
  'hdr-histogram-js': ['src/telemetry/quantiles.ts'],
  'ipaddr.js': ['src/config/', 'src/downstream/client-address.ts', 'src/policy/addresses.ts'],
}

const NAMES = [
  {
    // spawn.ts hands the environment on to the workers, with the one variable that uWS reads by itself. no-debugger.ts
    // runs before anything is loaded.
    pattern: /\bprocess\.env\b/,
    what: 'process.env',
    by: ['src/config/load.ts', 'src/primary/spawn.ts', 'src/worker/no-debugger.ts'],
  },
  { pattern: /\.node['"`]/, what: 'a .node file', by: ['native/index.ts'] },
]

/** Of each file, the files of ours it imports, for their types too. */
const imports = new Map()

const breaches = []
const breach = (file, rule) => breaches.push(`${file}: ${rule}`)

const files = [
  'native/index.ts',
  ...readdirSync(join(root, 'src'), { recursive: true })
    .filter((file) => file.endsWith('.ts'))
    .map((file) => join('src', file)),
]

for (const file of files) {
  const text = readFileSync(join(root, file), 'utf8')
  const lines = text.split('\n')
  const first = lines[0].startsWith('#!') ? lines[1] : lines[0]
  if (!first.startsWith('// ')) breach(file, 'a file begins by saying where it stands and what it may not touch')

  lines.forEach((line, at) => {
    if (/^\s*(\/\/|\/?\*)/.test(line) && [...line].length > 120)
      breach(`${file}:${at + 1}`, 'a comment line ends at 120 columns')
  })

  const code = lines.filter((line) => !/^\s*(\/\/|\/?\*)/.test(line)).join('\n')
  for (const { pattern, what, by } of NAMES) {
    if (pattern.test(code) && !by.includes(file)) breach(file, `only ${by.join(' and ')} may use ${what}`)
  }
  for (const match of code.matchAll(/(?:\bfrom|\bimport|\brequire\(|\bimport\()\s*['"]([^'"\s]+)['"]/g)) {
    checkImport(file, match[1])
  }
}

function checkImport(file, specifier) {
  if (specifier.startsWith('node:')) return
  if (!specifier.startsWith('.')) return checkDependency(file, specifier)
  if (!specifier.endsWith('.js')) return breach(file, `imports end in .js, '${specifier}' does not`)
  const target = normalize(join(dirname(file), specifier)).replace(/\.js$/, '.ts')
  imports.set(file, [...(imports.get(file) ?? []), target])
  for (const [inner, by] of Object.entries(INNER)) {
    if (target.startsWith(inner) && !by.some((one) => file.startsWith(one)))
      breach(file, `only ${by.join(' and ')} may import ${target}`)
  }
  const folder = layerOf(file)
  const other = layerOf(target)
  if (folder === other || LAYERS[folder]?.includes(other)) return
  breach(file, `${folder}/ may not import ${target}; it may import ${LAYERS[folder]?.join(', ') || 'nothing else'}`)
}

function layerOf(file) {
  const [top, folder] = file.split('/')
  return top === 'src' ? folder : top
}

function checkDependency(file, specifier) {
  // A part of a package is the package's.
  const name = Object.keys(OWNED).find((one) => specifier === one || specifier.startsWith(`${one}/`))
  if (name === undefined) {
    return breach(file, `${specifier} has no owner: name the files that may import it in scripts/check-tree.mjs`)
  }
  const by = OWNED[name]
  if (by.some((one) => file === one || (one.endsWith('/') && file.startsWith(one)))) return
  breach(file, `only ${by.join(', ')} may import ${specifier}`)
}

/** The first way from a file back to itself, each reported once. */
function findCircles() {
  const state = new Map()
  const path = []
  const visit = (file) => {
    state.set(file, 'open')
    path.push(file)
    for (const target of imports.get(file) ?? []) {
      if (state.get(target) === 'open') {
        breach(file, `a circle of imports: ${[...path.slice(path.indexOf(target)), target].join(' → ')}`)
      } else if (!state.has(target)) visit(target)
    }
    path.pop()
    state.set(file, 'done')
  }
  for (const file of files) if (!state.has(file)) visit(file)
}

findCircles()

for (const line of breaches) process.stderr.write(`${line}\n`)
if (breaches.length > 0) process.stderr.write(`${breaches.length} breaches of the tree's rules\n`)
else process.stdout.write(`${files.length} files keep the tree's rules\n`)
process.exitCode = breaches.length > 0 ? 1 : 0
