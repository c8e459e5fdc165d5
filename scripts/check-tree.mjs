// Holds the tree to its rules (ARCHITECTURE.md): who may import what, where the environment is read, that every file says where it
// stands. Part of `npm run check`. Prints one line for each breach, with the file and the rule, and ends with 1.
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize, relative } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))

/** What each folder may import besides itself; files directly in src/ by name. The order is the request's way. */
const LAYERS = {
  'src/config': ['src/config/schema'],
  'src/config/schema': ['src/config'],
  'src/state': ['native/index', 'src/outcome'],
  'src/telemetry': ['src/config', 'src/state'],
  'src/ingress': ['src/config', 'src/outcome', 'src/deadlines', 'native/index'],
  'src/policy': ['src/config', 'src/state', 'src/ingress', 'src/outcome', 'src/deadlines', 'native/index'],
  'src/proxy': [
    'src/config',
    'src/state',
    'src/telemetry',
    'src/ingress',
    'src/policy',
    'src/proxy/lean',
    'src/outcome',
    'src/deadlines',
  ],
  'src/proxy/lean': ['src/config', 'src/ingress', 'src/proxy', 'src/outcome', 'src/deadlines'],
  'src/control': ['src/config', 'src/state', 'src/telemetry', 'src/ingress', 'src/generations'],
}

/** Beyond the layers, each with its reason. */
const ALSO = {
  // The record of a request, for its types: what is counted and logged is read from it.
  'src/state/counters.ts': ['src/ingress/exchange'],
  'src/telemetry/access-log.ts': ['src/ingress/exchange'],
  // Descriptors from primary to primary, the listening socket, a word to systemd, and whether there is an addon at all.
  'src/control/isolation.ts': ['native/index'],
  'src/control/listening-socket.ts': ['native/index'],
  'src/control/takeover.ts': ['native/index'],
  'src/control/service-manager.ts': ['native/index'],
  // Upstream sockets.
  'src/proxy/lean/transport.ts': ['native/index'],
  'src/proxy/lean/native-transport.ts': ['native/index'],
  // One reader of Connection's list for both directions.
  'src/ingress/accept.ts': ['src/proxy/headers'],
}

/** A dependency, a module or a name, and the only files, or folders, that may use it. A type import counts as use: it ties the file to the thing. */
const OWNED = [
  {
    what: 'uWebSockets.js',
    by: [
      'src/ingress/accept.ts',
      'src/ingress/body.ts',
      'src/ingress/client-address.ts',
      'src/ingress/client-certificate.ts',
      'src/ingress/exchange.ts',
      'src/ingress/gate.ts',
      'src/ingress/listen.ts',
      'src/ingress/peers.ts',
      'src/ingress/tls.ts',
      'src/ingress/uws.ts',
      'src/proxy/respond.ts',
      'src/generations.ts',
      'src/worker.ts',
    ],
  },
  {
    what: 'src/ingress/uws',
    by: ['src/ingress/listen.ts', 'src/ingress/tls.ts', 'src/generations.ts', 'src/control/worker-entry.ts'],
  },
  {
    // For types alone: its interface is what forward.ts and the clients share. Code of it is loaded in one place.
    what: 'undici',
    by: [
      'src/proxy/client.ts',
      'src/proxy/forward.ts',
      'src/proxy/undici.ts',
      'src/proxy/clients.ts',
      'src/proxy/upstreams.ts',
      'src/proxy/lean/pool.ts',
      'src/proxy/lean/request-head.ts',
      'src/proxy/lean/request.ts',
    ],
  },
  { what: 'piscina', by: ['src/policy/digest-pool.ts', 'src/policy/digest-worker.ts'] },
  { what: 'jose', by: ['src/policy/jwt-check.ts', 'src/policy/jwt-keys.ts', 'src/policy/key-set.ts'] },
  {
    what: 'structured-headers',
    by: [
      'src/config/http-signature.ts',
      'src/policy/content-digest.ts',
      'src/policy/http-signature.ts',
      'src/policy/signature-base.ts',
      'src/sign-message.ts',
    ],
  },
  { what: 'commander', by: ['src/cli.ts'] },
  { what: 'yaml', by: ['src/config/load.ts'] },
  {
    what: 'zod',
    by: [
      'src/config/load.ts',
      'src/config/schema.ts',
      'src/config/schema/',
      'src/config/settings.ts',
      'src/config/zod-problems.ts',
    ],
  },
  { what: 'pino', by: ['src/telemetry/log.ts'] },
  { what: 'sonic-boom', by: ['src/telemetry/log.ts', 'src/telemetry/line-writer.ts'] },
  { what: 'hdr-histogram-js', by: ['src/telemetry/quantiles.ts'] },
  {
    what: 'ipaddr.js',
    by: [
      'src/config/compile.ts',
      'src/config/route-table.ts',
      'src/config/schema/values.ts',
      'src/ingress/client-address.ts',
      'src/policy/addresses.ts',
    ],
  },
  {
    what: 'native/index',
    by: [
      'src/state/segment.ts',
      'src/ingress/gate.ts',
      'src/ingress/listen.ts',
      'src/policy/signature.ts',
      'src/control/isolation.ts',
      'src/control/listening-socket.ts',
      'src/control/service-manager.ts',
      'src/control/takeover.ts',
      'src/proxy/lean/transport.ts',
      'src/proxy/lean/native-transport.ts',
    ],
  },
]

const NAMES = [
  {
    // spawn.ts hands the environment on to the workers, with the one variable that uWS reads by itself. no-debugger.ts runs before anything is loaded.
    pattern: /\bprocess\.env\b/,
    what: 'process.env',
    by: ['src/config/load.ts', 'src/control/spawn.ts', 'src/control/no-debugger.ts'],
  },
  { pattern: /\.node['"`]/, what: 'a .node file', by: ['native/index.ts'] },
]

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
  const own = specifier.startsWith('.')
  if (own && !specifier.endsWith('.js')) return breach(file, `imports end in .js, '${specifier}' does not`)
  const target = own ? normalize(join(dirname(file), specifier)).replace(/\.js$/, '') : specifier
  // A part of a package is the package's.
  const owned = OWNED.find(({ what }) => what === target || (!own && target.startsWith(`${what}/`)))
  if (owned !== undefined && !owned.by.some((one) => file === one || (one.endsWith('/') && file.startsWith(one)))) {
    return breach(file, `only ${owned.by.join(', ')} may import ${target}`)
  }
  if (!own) {
    if (owned === undefined)
      breach(file, `${target} has no owner: name the files that may import it in scripts/check-tree.mjs`)
    return
  }
  const folder = dirname(file)
  const allowed = LAYERS[folder]
  // Files directly in src/ wire the folders together, and may import any of them.
  if (allowed === undefined || dirname(target) === folder) return
  const may = [...allowed, ...(ALSO[file] ?? [])]
  if (!may.some((one) => target === one || dirname(target) === one)) {
    breach(
      file,
      `${relative('src', folder)} may not import ${target}; it may import ${may.join(', ') || 'nothing else'}`,
    )
  }
}

for (const line of breaches) process.stderr.write(`${line}\n`)
if (breaches.length > 0) process.stderr.write(`${breaches.length} breaches of the tree's rules\n`)
else process.stdout.write(`${files.length} files keep the tree's rules\n`)
process.exitCode = breaches.length > 0 ? 1 : 0
