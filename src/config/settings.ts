// The environment: what differs from one deployment to the next. Each variable with its type, limits, default and
// meaning. The table in docs/configuration.md is made from this one by scripts/reference.mjs, and a test holds them
// equal. load.ts reads the values.
import { isIPv6 } from 'node:net'
import os from 'node:os'
import { z } from 'zod'
import { sizeBytes } from './quantities.js'
import { defaultStatePath, type StatePlaces } from './state-path.js'

export type Environment = Readonly<Record<string, string | undefined>>

/** What computed defaults depend on. */
export type DefaultsContext = StatePlaces

const text = z.string().min(1)
/** A stream by name, or a file. A different one of these words is a mistake, not a file name. */
const output = (...streams: string[]) =>
  z.string().transform((value, context) => {
    if (/^(stdout|stderr|stdin|on|off|none|syslog|true|false|-)$/i.test(value) && !streams.includes(value))
      context.addIssue(`must be ${streams.join(', ')} or the path of a file (./NAME for one of such a name)`)
    return value
  })
const hostname = z.string().regex(/^[A-Za-z0-9_.:%-]+$/, 'is not a host name or address')

const numberIn = (min: number, max: number) =>
  z.string().transform((value, context) => {
    const number = /^\d{1,15}$/.test(value) ? Number(value) : Number.NaN
    if (!(number >= min && number <= max)) context.addIssue(`must be a whole number between ${min} and ${max}`)
    return number
  })

const bytesIn = (min: number, max: number) =>
  z.string().transform((value, context) => {
    const bytes = sizeBytes(value)
    if (bytes === null || bytes < min || bytes > max) {
      context.addIssue(`must be a number of bytes between ${min} and ${max}, KiB, MiB and GiB allowed`)
    }
    return bytes ?? 0
  })

const namesIn = z.string().transform((value, context) => {
  const names = value.split(',').map((name) => name.trim())
  if (value !== '' && !names.every((name) => isIPv6(name) || /^[A-Za-z0-9_.-]+$/.test(name)))
    context.addIssue('must be host names or addresses with commas between them, without ports or brackets')
  return value === '' ? [] : names
})

const zone = z
  .string()
  .regex(/^$|^[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,127}$/, 'must be a name: letters, digits and . _ @ : / + -, 128 at most')

const PORT = numberIn(0, 65_535)

export const SETTINGS = {
  TIDEGATE_CONFIG: {
    key: 'configFile',
    type: text,
    default: 'tidegate.yaml',
    about: 'the configuration file, YAML or JSON',
  },
  TIDEGATE_HOST: { key: 'host', type: hostname, default: '0.0.0.0', about: 'address to listen on' },
  TIDEGATE_PORT: { key: 'port', type: PORT, default: '8080', about: 'port to listen on; 0 chooses a free one' },
  TIDEGATE_ADMIN_HOST: {
    key: 'adminHost',
    type: hostname,
    default: '127.0.0.1',
    about: 'address of the admin listener, which needs no password',
  },
  TIDEGATE_ADMIN_NAMES: {
    key: 'adminNames',
    type: namesIn,
    default: '',
    shown: 'none',
    about:
      'comma-separated names and addresses that the admin listener accepts in Host, besides `localhost` and the address of the connection',
  },
  TIDEGATE_ADMIN_PORT: {
    key: 'adminPort',
    type: PORT,
    default: '9901',
    about: 'port of /livez, /readyz, /metrics and /status; 0 chooses a free one',
  },
  TIDEGATE_WORKERS: {
    key: 'workers',
    type: numberIn(1, 128),
    default: () => String(Math.min(128, os.availableParallelism())),
    shown: 'number of cores',
    about: 'worker processes, 1 to 128',
  },
  TIDEGATE_ZONE: {
    key: 'zone',
    type: zone,
    default: '',
    shown: 'none',
    about: 'where this gateway runs: endpoints with the same `zone` are preferred while enough of them are up',
  },
  TIDEGATE_ISOLATION: {
    key: 'isolation',
    type: z.enum(['auto', 'process', 'thread']),
    default: 'auto',
    about: '`process`, `thread`, or `auto`: processes if the native addon was built',
  },
  TIDEGATE_STATE: {
    key: 'state',
    type: text,
    default: defaultStatePath,
    shown: '`tidegate-UID-PORT.state` in [a directory of its own](operations.md#the-state-file)',
    about: 'file that keeps limits and breakers over a restart; `none` keeps nothing',
  },
  TIDEGATE_LOG: {
    key: 'log',
    type: output('stderr'),
    default: 'stderr',
    about: "destination of the gateway's own log: `stderr`, or the path of a file",
  },
  TIDEGATE_LOG_LEVEL: {
    key: 'logLevel',
    type: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    default: 'info',
    about: '`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `silent`; does not affect the access log',
  },
  TIDEGATE_ACCESS_LOG: {
    key: 'accessLog',
    type: output('stdout', 'off'),
    default: 'stdout',
    about: 'destination of the access log: `stdout`, `off`, or the path of a file',
  },
  TIDEGATE_UPSTREAM_CONNECTIONS: {
    key: 'upstreamConnections',
    type: numberIn(1, 65_535),
    default: '128',
    about: 'most connections to an endpoint, per worker',
  },
  TIDEGATE_HMAC_OFFLOAD_BYTES: {
    key: 'hmacOffloadBytes',
    type: bytesIn(0, 2 ** 30),
    default: '32768',
    about: 'signed bodies of at least this size are checked in a thread; 0 sends every check there',
  },
  TIDEGATE_HMAC_THREADS: {
    key: 'hmacThreads',
    type: numberIn(1, 64),
    default: '1',
    about: 'threads for these checks, per worker',
  },
  TIDEGATE_MAX_HEADER_BYTES: {
    key: 'maxHeaderBytes',
    type: bytesIn(1024, 2 ** 20),
    default: '16384',
    about: 'most bytes of a request head, 1 KiB to 1 MiB',
  },
  TIDEGATE_HEADER_TIMEOUT_MS: {
    key: 'headerTimeoutMs',
    type: numberIn(100, 3_600_000),
    default: '10000',
    about:
      'time for a request head, from accept for the first one and from the first byte for later ones (in steps of 4 s); then 408, and the connection ends',
  },
  TIDEGATE_IDLE_TIMEOUT_MS: {
    key: 'idleTimeoutMs',
    type: numberIn(10_000, 900_000),
    default: '75000',
    about: 'time that a connection stays open without a next request, in steps of 4 s',
  },
  TIDEGATE_MAX_CONNECTIONS: {
    key: 'maxConnections',
    type: numberIn(0, 2 ** 31 - 1),
    default: '100000',
    about: 'most client connections at a time, over all workers; further ones get 503; 0 sets no limit',
  },
  TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: {
    key: 'maxConnectionsPerAddress',
    type: numberIn(0, 2 ** 31 - 1),
    default: '0',
    about: 'the same per client address, or /64 of IPv6; trusted proxies are exempt; 0 sets no limit',
  },
  TIDEGATE_PROXY_PROTOCOL: {
    key: 'proxyProtocol',
    type: z.enum(['off', 'on']),
    default: 'off',
    about:
      '`on`: connections from `trustedProxies` must begin with a PROXY protocol header (version 1 or 2), which names the client address',
  },
  TIDEGATE_MAX_BODY_BYTES: {
    key: 'maxBodyBytes',
    type: bytesIn(0, 2 ** 40),
    default: '1048576',
    about: 'most bytes of a request body on routes without `maxBody`',
  },
  TIDEGATE_MIN_BODY_RATE: {
    key: 'minBodyBytesPerSecond',
    type: numberIn(0, 2 ** 30),
    default: '240',
    about: 'fewest bytes per second of a request body on average, after 5 s; slower ones get 408; 0 accepts any',
  },
  TIDEGATE_BODY_MEMORY: {
    key: 'bodyMemoryBytes',
    type: bytesIn(2 ** 20, 2 ** 40),
    default: '256MiB',
    about:
      'most bytes of request bodies that a worker holds in memory, a quarter of it per client address; further requests get 503',
  },
  TIDEGATE_RATE_LIMIT_KEYS: {
    key: 'rateLimitKeys',
    type: numberIn(1024, 2 ** 24),
    default: '65536',
    about:
      'keys in the rate-limit table: this many windows, of 416 bytes each, and this many buckets and quotas, of 88',
  },
  TIDEGATE_REPLAY_KEYS: {
    key: 'replayKeys',
    type: numberIn(1024, 2 ** 24),
    default: '262144',
    about: 'signatures that `replay: once` remembers, about 64 bytes each; takes no memory if no route uses it',
  },
  TIDEGATE_DRAIN_TIMEOUT_MS: {
    key: 'drainTimeoutMs',
    type: numberIn(0, 3_600_000),
    default: '10000',
    about: 'time for requests in flight to finish when a worker leaves',
  },
  TIDEGATE_SHUTDOWN_DELAY_MS: {
    key: 'shutdownDelayMs',
    type: numberIn(0, 3_600_000),
    default: '0',
    about: 'time after SIGTERM in which /readyz fails but requests are still served, before the drain begins',
  },
  TIDEGATE_WATCH_CONFIG: {
    key: 'watchConfig',
    type: z.enum(['off', 'on']),
    default: 'off',
    about: '`on`: the gateway reads the configuration file again when it changes',
  },
  TIDEGATE_UWS_PATCHES: {
    key: 'uwsPatches',
    type: z.enum(['on', 'off']),
    default: 'on',
    about:
      '`off`: uWebSockets.js runs without the native patches that correct it; `docs/framing.md` says what that costs',
  },
  TIDEGATE_WORKER_MEMORY_MAX: {
    key: 'workerMemoryMaxBytes',
    type: bytesIn(0, 2 ** 40),
    default: '0',
    about: 'resident bytes above which a worker is replaced; 0: no limit',
  },
} as const satisfies Record<string, Setting>

interface Setting {
  readonly key: string
  /** Parses the variable's text. */
  readonly type: z.ZodType<unknown, string>
  readonly default: string | ((context: DefaultsContext) => string)
  /** How the documentation shows a computed default. */
  readonly shown?: string
  readonly about: string
}

type Table = typeof SETTINGS
export type SettingName = keyof Table
export type Settings = { readonly [Name in SettingName as Table[Name]['key']]: z.output<Table[Name]['type']> }

/** Variables that tests and the isolation machinery set. They are not settings, and not typing mistakes. */
export const IGNORED_VARIABLES = /^TIDEGATE_(TEST_|NATIVE)/

/** The rows of the table in docs/configuration.md: `| variable | default | meaning |`. */
export function settingsRows(): string[] {
  return Object.entries<Setting>(SETTINGS).map(
    ([name, setting]) => `| \`${name}\` | ${setting.shown ?? `\`${setting.default}\``} | ${setting.about} |`,
  )
}
