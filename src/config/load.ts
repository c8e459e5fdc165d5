// Reads file and environment into frozen, plain settings and config (they travel to the workers as messages), or throws
// a ConfigError that names every problem with its key, line and column. The only reader of process.env. Nothing here
// prints a value that may be a secret.
import { readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { isMap, isPair, isScalar, LineCounter, type ParsedNode, parseDocument } from 'yaml'
import type { z } from 'zod'
import { resolveTls } from './certificates.js'
import { nearest } from './nearest.js'
import type { CheckedEntries, Problem } from './problems.js'
import { certificateProblems, danglingNames, referenceProblems } from './references.js'
import { limitSchema } from './schema/limits.js'
import { routeSchema } from './schema/routes.js'
import { serviceSchema } from './schema/services.js'
import { type Config, configSchema } from './schema.js'
import { readSecret, resolveSecrets } from './secrets.js'
import {
  type DefaultsContext,
  type Environment,
  IGNORED_VARIABLES,
  SETTINGS,
  type SettingName,
  type Settings,
} from './settings.js'
import { schemaProblems } from './zod-problems.js'

export type { Environment } from './settings.js'

export interface Loaded {
  readonly settings: Settings
  readonly config: Config
  /** The source of the config, as messages name it. */
  readonly origin: string
  /** The position of each route as messages give it: FILE:LINE:COLUMN. */
  readonly routesAt: readonly string[]
}

export interface LoadOptions {
  /** Path of the file. Takes precedence over TIDEGATE_CONFIG. */
  readonly file?: string | undefined
  /** The text of the built-in demo, in place of a file. */
  readonly text?: { readonly origin: string; readonly yaml: string }
  readonly env?: Environment | undefined
}

/** Everything that is wrong with the input, one line per problem, ready to print. The command then exits with 2. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly problems: readonly string[]
  /** The file does not exist: the command tells how to create one. */
  readonly missingFile: boolean

  constructor(problems: readonly string[], missingFile = false) {
    super(problems.join('\n'))
    this.problems = problems
    this.missingFile = missingFile
  }
}

/** @throws ConfigError with everything that is wrong with the environment and the file, not only the first. */
export function loadConfig(options: LoadOptions = {}): Loaded {
  const env = options.env ?? process.env
  const { settings, problems } = readSettings(
    options.file === undefined ? env : { ...env, TIDEGATE_CONFIG: options.file },
  )
  const origin = options.text?.origin ?? settings.configFile
  let config: Config | null = null
  let routesAt: string[] = []
  try {
    const text = options.text?.yaml ?? readConfigFile(origin)
    ;({ config, routesAt } = parseConfig(text, origin, env, path.dirname(path.resolve(origin))))
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    if (problems.length === 0) throw error
    problems.push(...error.problems)
  }
  if (settings.proxyProtocol === 'on' && config?.trustedProxies.length === 0) {
    problems.push(
      'TIDEGATE_PROXY_PROTOCOL: "on" needs trustedProxies in the configuration: a header is believed from those alone',
    )
  }
  if (config === null || problems.length > 0) throw new ConfigError(problems)
  return deepFreeze({ settings, config, origin, routesAt })
}

/** Reads only the settings, for commands that need no config. */
export function loadSettings(env: Environment = process.env): Settings {
  const { settings, problems } = readSettings(env)
  if (problems.length > 0) throw new ConfigError(problems)
  return deepFreeze(settings)
}

/** What a service manager passes in the environment. */
export interface ServiceEnvironment {
  /** Descriptors it has opened for us, from 3 on: sd_listen_fds(3). */
  readonly listenFds: number
  /** The socket for status notifications; '' if none is wanted: sd_notify(3). */
  readonly notifySocket: string
  /** Longest time between watchdog notifications; 0 disables them: sd_watchdog_enabled(3). */
  readonly watchdogMs: number
}

/** True if npm started this process through a script of package.json: npm sets this variable. */
export function isStartedByNpm(env: Environment = process.env): boolean {
  return env.npm_lifecycle_event !== undefined
}

export function serviceEnvironment(env: Environment = process.env, pid = process.pid): ServiceEnvironment {
  const number = (text: string | undefined): number => (/^\d{1,15}$/.test(text ?? '') ? Number(text) : 0)
  const ours = (of: string | undefined): boolean => number(of) === pid
  return {
    listenFds: ours(env.LISTEN_PID) ? number(env.LISTEN_FDS) : 0,
    notifySocket: env.NOTIFY_SOCKET ?? '',
    watchdogMs:
      env.WATCHDOG_PID === undefined || ours(env.WATCHDOG_PID) ? Math.floor(number(env.WATCHDOG_USEC) / 1000) : 0,
  }
}

function readSettings(env: Environment): { settings: Settings; problems: string[] } {
  const problems: string[] = []
  const names = Object.keys(SETTINGS) as SettingName[]
  for (const name of Object.keys(env)) {
    if (!name.startsWith('TIDEGATE_') || name in SETTINGS || IGNORED_VARIABLES.test(name)) continue
    const near = nearest(name, names)
    problems.push(`${name}: no such setting${near === null ? '' : `; did you mean ${near}?`}`)
  }
  const values: Record<string, unknown> = {}
  const context = (): DefaultsContext => ({
    stateDirectory: env.STATE_DIRECTORY ?? '',
    runtimeDirectory: env.RUNTIME_DIRECTORY ?? '',
    sessionDirectory: env.XDG_RUNTIME_DIR ?? '',
    stateHome: env.XDG_STATE_HOME ?? '',
    uid: process.getuid?.() ?? 0,
    port: typeof values.port === 'number' ? values.port : 0,
  })
  for (const name of names) {
    const setting = SETTINGS[name]
    // Compose files and service managers express "unset" as an empty value.
    const text = env[name] || (typeof setting.default === 'function' ? setting.default(context()) : setting.default)
    const parsed = (setting.type as z.ZodType<unknown, string>).safeParse(text)
    values[setting.key] = parsed.data
    if (!parsed.success) {
      for (const problem of schemaProblems(parsed.error, text))
        problems.push(`${name}: ${problem.message}, "${text}" is not`)
    }
  }
  return { settings: values as unknown as Settings, problems }
}

function readConfigFile(file: string): string {
  try {
    if (statSync(file).isDirectory()) throw new ConfigError([`${file}: is a directory, not a configuration file`])
    return readFileSync(file, 'utf8')
  } catch (error) {
    if (error instanceof ConfigError) throw error
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') throw new ConfigError([`${file}: no such file`], true)
    throw new ConfigError([`${file}: cannot be read (${code})`])
  }
}

/** @param directory the base of relative file: secrets */
function parseConfig(
  text: string,
  origin: string,
  env: Environment,
  directory: string,
): { config: Config; routesAt: string[] } {
  const lines = new LineCounter()
  // With prettyErrors, a message would quote the line and could reveal a secret.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset)
    return `${origin}:${line}:${col}`
  }
  const duplicates = document.errors.filter((error) => error.code === 'DUPLICATE_KEY')
  // Further syntax errors are mostly consequences of the first.
  const syntax = document.errors.filter((error) => error.code !== 'DUPLICATE_KEY').slice(0, 1)
  const yamlProblems = [
    ...syntax.map(
      (error) =>
        `${at(error.pos[0])}: is not YAML: ${error.code === 'MULTIPLE_DOCS' ? 'it holds several documents' : withoutQuotes(error.message)}`,
    ),
    ...duplicates.map((error) => `${at(error.pos[0])}: ${duplicateKey(text, error.pos)} is given twice`),
    ...document.warnings.map((warning) => `${at(warning.pos[0])}: has a tag that means nothing here`),
  ]
  if (yamlProblems.length > 0) throw new ConfigError(yamlProblems)
  let raw: unknown
  try {
    raw = document.toJS()
  } catch {
    // An alias without an anchor, or nested aliases beyond yaml's maxAliasCount. yaml's message quotes the alias.
    throw new ConfigError([`${origin}: has an alias (*name) without its anchor, or too many of them`])
  }
  if (raw === null || raw === undefined) throw new ConfigError([`${origin}: is empty`])

  const { config, problems } = checkConfig(raw)
  const resolved = config === null ? null : resolveFiles(config, env, directory, problems)
  if (resolved === null || problems.length > 0) {
    throw new ConfigError(
      problems
        .map((problem) => ({ offset: offsetOf(document.contents, problem), problem }))
        .sort((a, b) => a.offset - b.offset)
        .map(({ offset, problem }) => `${at(offset)}: ${describe(problem)}`),
    )
  }
  const routesAt = resolved.routes.map((_, index) =>
    at(offsetOf(document.contents, { path: ['routes', index], message: '' })),
  )
  return { config: resolved, routesAt }
}

/** `config` is null if the schema refused it; references are then checked between the entries that are valid. */
function checkConfig(raw: unknown): { config: Config | null; problems: Problem[] } {
  const parsed = configSchema.safeParse(raw)
  const problems: Problem[] = parsed.success ? [] : schemaProblems(parsed.error, raw)
  const names = {
    consumers: keysOf(raw, 'consumers'),
    issuers: keysOf(raw, 'jwt'),
    services: keysOf(raw, 'services'),
    limits: keysOf(raw, 'limits'),
  }
  const routes = isRecord(raw) && Array.isArray(raw.routes) ? raw.routes : []
  problems.push(...danglingNames(routes, names))
  problems.push(...referenceProblems(parsed.success ? parsed.data : soundEntries(raw), names))
  if (parsed.success) problems.push(...certificateProblems(parsed.data))
  return { config: parsed.success ? parsed.data : null, problems }
}

function soundEntries(raw: unknown): CheckedEntries {
  const section = (key: string): object => Object(isRecord(raw) ? raw[key] : undefined)
  const sound = <T extends z.ZodType>(schema: T, key: string): Record<string, z.output<T>> => {
    const entries = Object.entries(section(key)).map(([name, value]) => [name, schema.safeParse(value)] as const)
    return Object.fromEntries(entries.flatMap(([name, result]) => (result.success ? [[name, result.data]] : [])))
  }
  const routes = section('routes')
  return {
    // An invalid consumer could have any credentials, so missing credentials are not reported.
    consumers: null,
    jwt: null,
    services: sound(serviceSchema, 'services'),
    limits: sound(limitSchema, 'limits'),
    routes: Array.isArray(routes) ? routes.map((route) => routeSchema.safeParse(route).data) : [],
  }
}

/** Reads what lies outside the file: secrets, bodies and certificates. */
function resolveFiles(config: Config, env: Environment, directory: string, problems: Problem[]): Config {
  const withSecrets = resolveSecrets(config, env, directory, problems)
  const withTls = resolveTls(withSecrets, env, directory, problems)
  return resolveFallbacks(withTls, directory, problems)
}

function resolveFallbacks(config: Config, directory: string, problems: Problem[]): Config {
  const routes = config.routes.map((route, index) => {
    const file = route.fallback?.file
    if (route.fallback === undefined || file === undefined) return route
    try {
      const bodyBase64 = readFileSync(path.resolve(directory, file)).toString('base64')
      return { ...route, fallback: { ...route.fallback, bodyBase64 } }
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      problems.push({
        path: ['routes', index, 'fallback', 'file'],
        message: `the file ${file} cannot be read (${code})`,
      })
      return route
    }
  })
  return { ...config, routes }
}

/** Resolves `env:NAME`, `file:PATH` or a literal secret, for commands that take one. */
export function resolveSecret(text: string): { secret: string } | { problem: string } {
  return readSecret(text, process.env, '.')
}

function describe(problem: Problem): string {
  if (problem.path.length === 0) return problem.message
  let key = ''
  for (const part of problem.path) {
    if (typeof part === 'number') key += `[${part}]`
    else key += key === '' ? String(part) : `.${String(part)}`
  }
  return `${key}: ${problem.message}`
}

/** The position of a problem's key; for a missing key, the position of its parent. */
function offsetOf(root: ParsedNode | null, problem: Problem): number {
  let node: unknown = root
  let offset = root?.range[0] ?? 0
  for (const part of problem.path) {
    if (isMap(node)) {
      const pair = node.items.find(
        (item) => isPair(item) && isScalar(item.key) && String(item.key.value) === String(part),
      )
      if (pair === undefined) break
      offset = (pair.key as ParsedNode).range[0]
      node = pair.value
    } else {
      const item = (node as { items?: unknown[] } | null)?.items?.[part as number]
      if (item === undefined) break
      offset = (item as ParsedNode).range?.[0] ?? offset
      node = item
    }
  }
  return offset
}

/** Removes what yaml's messages quote from the file: it stands after a colon or in quotes. */
function withoutQuotes(message: string): string {
  return (message.split(/["\n]|: |\\/)[0] as string).trim().replace(/^\w/, (first) => first.toLowerCase())
}

function duplicateKey(text: string, [start, end]: readonly [number, number]): string {
  const key = /^[\w.@:/+-]+/.exec(text.slice(start, Math.max(end, start + 64)))?.[0]
  return key === undefined ? 'a key' : `"${key.replace(/:$/, '')}"`
}

function keysOf(raw: unknown, key: string): string[] {
  const section = isRecord(raw) ? raw[key] : undefined
  return isRecord(section) ? Object.keys(section) : []
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value)
    for (const inner of Object.values(value)) deepFreeze(inner)
  }
  return value
}
