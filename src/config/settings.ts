// The environment: what differs from one deployment to the next. Each variable with its type, limits, default and meaning; README's
// table is held equal to this one by a test. The values are read in load.ts.
import { isIPv6 } from 'node:net'
import os from 'node:os'
import { z } from 'zod'
import { sizeBytes } from './quantities.js'
import { defaultStatePath, type StatePlaces } from './state-path.js'

export type Environment = Readonly<Record<string, string | undefined>>

/** What defaults may depend on besides themselves. */
export type DefaultsContext = StatePlaces

const text = z.string().min(1)
/** Streams by name, or a file. Another of these words is a mistake, and no file of that name. */
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

const PORT = numberIn(0, 65_535)

export const SETTINGS = {
  TIDEGATE_CONFIG: {
    key: 'configFile',
    type: text,
    default: 'tidegate.yaml',
    about: 'the configuration file, YAML or JSON',
  },
  TIDEGATE_HOST: { key: 'host', type: hostname, default: '0.0.0.0', about: 'address to listen on' },
  TIDEGATE_PORT: { key: 'port', type: PORT, default: '8080', about: 'port to listen on; 0 takes a free one' },
  TIDEGATE_ADMIN_HOST: {
    key: 'adminHost',
    type: hostname,
    default: '127.0.0.1',
    about: 'address of the admin listener, which has no password',
  },
  TIDEGATE_ADMIN_NAMES: {
    key: 'adminNames',
    type: namesIn,
    default: '',
    shown: 'none',
    about:
      'names and addresses, with commas between them, that requests to the admin listener may have in Host besides `localhost` and the address they came to',
  },
  TIDEGATE_ADMIN_PORT: {
    key: 'adminPort',
    type: PORT,
    default: '9901',
    about: 'port of /livez, /readyz, /metrics and /status; 0 takes a free one',
  },
  TIDEGATE_WORKERS: {
    key: 'workers',
    type: numberIn(1, 128),
    default: () => String(Math.min(128, os.availableParallelism())),
    shown: 'number of cores',
    about: 'worker processes, 1 to 128',
  },
  TIDEGATE_ISOLATION: {
    key: 'isolation',
    type: z.enum(['auto', 'process', 'thread']),
    default: 'auto',
    about: '`process`, `thread`, or `auto`: processes where the native addon was built',
  },
  TIDEGATE_STATE: {
    key: 'state',
    type: text,
    default: defaultStatePath,
    shown: '`tidegate-UID-PORT.state` in [a directory of its own](#the-state)',
    about: 'file that keeps limits and breakers over a restart; `none` keeps nothing past the process',
  },
  TIDEGATE_LOG: {
    key: 'log',
    type: output('stderr'),
    default: 'stderr',
    about: "where the gateway's own lines go: `stderr`, or the path of a file",
  },
  TIDEGATE_LOG_LEVEL: {
    key: 'logLevel',
    type: z.enum(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']),
    default: 'info',
    about: '`trace`, `debug`, `info`, `warn`, `error`, `fatal` or `silent`; not for the access log',
  },
  TIDEGATE_ACCESS_LOG: {
    key: 'accessLog',
    type: output('stdout', 'off'),
    default: 'stdout',
    about: '`stdout`, `off`, or the path of a file',
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
    about: 'signed bodies of this size and more are checked in a thread; 0 sends every check there',
  },
  TIDEGATE_HMAC_THREADS: {
    key: 'hmacThreads',
    type: numberIn(1, 64),
    default: '1',
    about: 'threads for that, per worker',
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
      'time that a head has, the first one from accept on, later ones from their first byte in steps of 4 s; then 408 and the end',
  },
  TIDEGATE_IDLE_TIMEOUT_MS: {
    key: 'idleTimeoutMs',
    type: numberIn(10_000, 900_000),
    default: '75000',
    about: 'time that a connection stays open after an answer without a next request, in steps of 4 s',
  },
  TIDEGATE_MAX_CONNECTIONS: {
    key: 'maxConnections',
    type: numberIn(0, 2 ** 31 - 1),
    default: '100000',
    about: 'most client connections at a time, over all workers; more are answered 503; 0 sets no limit',
  },
  TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS: {
    key: 'maxConnectionsPerAddress',
    type: numberIn(0, 2 ** 31 - 1),
    default: '0',
    about: 'the same for one client address, or one /64 of IPv6; trusted proxies have none; 0 sets no limit',
  },
  TIDEGATE_PROXY_PROTOCOL: {
    key: 'proxyProtocol',
    type: z.enum(['off', 'on']),
    default: 'off',
    about:
      '`on`: connections from `trustedProxies` must begin with a PROXY protocol header, version 1 or 2, and its address is the client',
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
    about:
      'bytes per second that a request body must bring on average, after 5 s; slower ones are answered 408; 0 takes any',
  },
  TIDEGATE_BODY_MEMORY: {
    key: 'bodyMemoryBytes',
    type: bytesIn(2 ** 20, 2 ** 40),
    default: '256MiB',
    about:
      'most bytes of request bodies that a worker holds, read whole for a signature or read ahead of a service; a quarter of it for one client address; more is answered 503',
  },
  TIDEGATE_RATE_LIMIT_KEYS: {
    key: 'rateLimitKeys',
    type: numberIn(1024, 2 ** 24),
    default: '65536',
    about: 'keys the rate-limit table has room for: windows, at 416 bytes each, and as many buckets and quotas, at 88',
  },
  TIDEGATE_REPLAY_KEYS: {
    key: 'replayKeys',
    type: numberIn(1024, 2 ** 24),
    default: '262144',
    about: 'signatures remembered where a route has `replay: once`, some 64 bytes each; no memory is taken else',
  },
  TIDEGATE_DRAIN_TIMEOUT_MS: {
    key: 'drainTimeoutMs',
    type: numberIn(0, 3_600_000),
    default: '10000',
    about: 'time that exchanges in flight have to finish when a worker leaves',
  },
  TIDEGATE_SHUTDOWN_DELAY_MS: {
    key: 'shutdownDelayMs',
    type: numberIn(0, 3_600_000),
    default: '0',
    about: 'time from SIGTERM to the drain in which /readyz fails and everything is served as before',
  },
  TIDEGATE_WATCH_CONFIG: {
    key: 'watchConfig',
    type: z.enum(['off', 'on']),
    default: 'off',
    about: '`on`: the configuration file is read again when it changes',
  },
  TIDEGATE_WORKER_MEMORY_MAX: {
    key: 'workerMemoryMaxBytes',
    type: bytesIn(0, 2 ** 40),
    default: '0',
    about: 'resident bytes above which a worker is replaced; 0: it may have as much as it takes',
  },
} as const satisfies Record<string, Setting>

interface Setting {
  readonly key: string
  /** From the variable's text to the setting. */
  readonly type: z.ZodType<unknown, string>
  readonly default: string | ((context: DefaultsContext) => string)
  /** How documentation shows a default that is computed. */
  readonly shown?: string
  readonly about: string
}

type Table = typeof SETTINGS
export type SettingName = keyof Table
export type Settings = { readonly [Name in SettingName as Table[Name]['key']]: z.output<Table[Name]['type']> }

/** Set for tests and by the isolation's own machinery: not settings, and no typing mistakes either. */
export const IGNORED_VARIABLES = /^TIDEGATE_(TEST_|NATIVE)/

/** The rows of README's table: `| variable | default | meaning |`. */
export function settingsRows(): string[] {
  return Object.entries<Setting>(SETTINGS).map(
    ([name, setting]) => `| \`${name}\` | ${setting.shown ?? `\`${setting.default}\``} | ${setting.about} |`,
  )
}
