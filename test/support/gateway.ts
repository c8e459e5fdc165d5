// Starts the built command as a user would, with a config file and an environment of its own, and reads what it writes.
// Each suite ends with close(), which holds what must be true after any traffic: an orderly exit, no worker lost, each
// request logged at most once, and nothing secret in any output.
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll } from 'vitest'
import { Lines } from './lines.js'
import { type Answer, call } from './raw-client.js'
import { issuedSignatures } from './signing.js'

const CLI = fileURLToPath(new URL('../../dist/src/cli/main.js', import.meta.url))

const START_MS = 30_000
/** Above TIDEGATE_DRAIN_TIMEOUT_MS' default. */
const STOP_MS = 30_000

export interface GatewayOptions {
  /** As JSON, which is YAML as well. */
  readonly config: object
  readonly workers?: number
  /** Settings besides those below, TIDEGATE_… */
  readonly env?: Readonly<Record<string, string>>
  /** What must be in no output and on no page of the admin listener, besides the secrets in `config`. */
  readonly secrets?: readonly string[]
  /** After `start`. */
  readonly args?: readonly string[]
  /** A listening socket, passed on as a service manager does. */
  readonly listenFd?: number
  /** The limit of open files (ulimit -n) of each of its processes. */
  readonly descriptors?: number
  /** The command of another build. */
  readonly cli?: string
  /** Workers that die are part of the test. */
  readonly losesWorkers?: boolean
}

/** A line of the gateway's own log. */
export interface LogLine {
  readonly level: number
  readonly time: number
  readonly msg: string
  readonly slot?: number
  readonly pid?: number
  readonly port?: number
  readonly reason?: string
  readonly [key: string]: unknown
}

export interface AccessLine {
  readonly time: number
  readonly rid: string
  readonly client: string
  readonly method: string
  readonly path: string
  readonly query?: string
  readonly consumer?: string
  readonly tried?: string
  readonly route?: string
  readonly service?: string
  readonly endpoint?: string
  readonly status: number
  readonly code?: string
  readonly reason?: string
  readonly fallback?: string
  readonly limitReported?: boolean
  readonly bytesIn: number
  readonly bytesOut: number
  readonly totalMs: number
  readonly upstreamMs?: number
  readonly attempts: number
  readonly retried?: string
}

/** The environment of these tests without what would configure the gateway or Node. */
export function cleanEnvironment(env: Readonly<Record<string, string>> = {}): Record<string, string> {
  const kept = Object.entries(process.env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && !/^(TIDEGATE_|VITEST|NODE_)/.test(entry[0]),
  )
  const isolation = process.env.TIDEGATE_ISOLATION
  return {
    ...Object.fromEntries(kept),
    ...(isolation === undefined ? {} : { TIDEGATE_ISOLATION: isolation }),
    TIDEGATE_HOST: '127.0.0.1',
    TIDEGATE_PORT: '0',
    TIDEGATE_ADMIN_PORT: '0',
    TIDEGATE_STATE: 'none',
    TIDEGATE_ACCESS_LOG: 'stdout',
    ...env,
  }
}

/** What must not outlive the test file, however it ends: a test that is skipped half-way closes nothing. */
const leftBehind = new Set<() => void>()
const clearUp = (): void => {
  for (const remove of leftBehind) remove()
  leftBehind.clear()
}
afterAll(clearUp)
// vitest ends a test process by a signal most of the time, and then this is not heard of.
process.once('exit', clearUp)

/** A folder that is gone with the test file. */
export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'tidegate-test-'))
  leftBehind.add(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

export function writeConfig(config: object): string {
  const file = join(temporaryFolder(), 'tidegate.yaml')
  writeFileSync(file, JSON.stringify(config, null, 2))
  return file
}

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

/** The command in a process of its own; its output line by line. */
export class Command {
  readonly child: ChildProcess
  /** What is not JSON is under `text`. */
  readonly access = new Lines<AccessLine & { text?: string }>('access line')
  readonly log = new Lines<LogLine & { text?: string }>('log line')
  readonly stdout = { text: '' }
  readonly stderr = { text: '' }
  /** Settles when the process is gone and nobody holds its output open any more, workers included. */
  readonly ended: Promise<Ended>

  constructor(
    args: readonly string[],
    env: Readonly<Record<string, string>>,
    listenFd?: number,
    descriptors?: number,
    cli = CLI,
  ) {
    const command = [process.execPath, cli, ...args]
    // The pid that LISTEN_PID names is that of the shell, and then of what it becomes.
    const first = [
      ...(listenFd === undefined ? [] : ['export LISTEN_PID=$$ LISTEN_FDS=1']),
      ...(descriptors === undefined ? [] : [`ulimit -n ${descriptors}`]),
    ]
    const shell = ['sh', '-c', [...first, 'exec "$0" "$@"'].join('; '), ...command]
    const [program, ...rest] = (first.length === 0 ? command : shell) as [string, ...string[]]
    const child = spawn(program, rest, {
      env,
      stdio: ['ignore', 'pipe', 'pipe', ...(listenFd === undefined ? [] : [listenFd])],
    })
    this.child = child
    collect(child.stdout!, this.stdout, this.access)
    collect(child.stderr!, this.stderr, this.log)
    // A log in a file of its own is read as somebody at a terminal would, through its rotations.
    const { TIDEGATE_LOG: logFile } = env
    const tail =
      logFile === undefined || logFile === 'stderr'
        ? null
        : spawn('tail', ['-n', '+1', '-F', '-s', '0.05', '--max-unchanged-stats=1', '---disable-inotify', logFile], {
            stdio: ['ignore', 'pipe', 'ignore'],
          })
    if (tail !== null) collect(tail.stdout!, { text: '' }, this.log)
    const lastResort = () => {
      child.kill('SIGKILL')
      tail?.kill()
    }
    leftBehind.add(lastResort)
    this.ended = new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code, signal) => {
        tail?.kill()
        leftBehind.delete(lastResort)
        resolve({ code, signal })
      })
    })
  }
}

function collect<T extends object>(stream: NodeJS.ReadableStream, whole: { text: string }, lines: Lines<T>): void {
  let open = ''
  stream.setEncoding('utf8')
  stream.on('data', (text: string) => {
    whole.text += text
    const parts = (open + text).split('\n')
    open = parts.pop() as string
    for (const part of parts) lines.push(parse(part))
  })
}

function parse<T>(line: string): T {
  try {
    return JSON.parse(line) as T
  } catch {
    return { text: line } as T
  }
}

/** Runs the command to its end. */
export async function runCommand(
  args: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<Command & Ended> {
  const command = new Command(args, env)
  const deadline = setTimeout(() => command.child.kill('SIGKILL'), START_MS)
  const ended = await command.ended
  clearTimeout(deadline)
  return Object.assign(command, ended)
}

export class Gateway {
  constructor(
    readonly command: Command,
    readonly port: number,
    readonly adminPort: number,
    readonly isolation: 'process' | 'thread',
    private readonly options: GatewayOptions,
    readonly configFile: string,
  ) {}

  get access(): Command['access'] {
    return this.command.access
  }

  get log(): Command['log'] {
    return this.command.log
  }

  /** The access line of an answer. */
  logged(answer: Answer): Promise<AccessLine> {
    return this.access.find((line) => line.rid === answer.rid, `rid ${answer.rid}`)
  }

  admin(target: string): Promise<Answer> {
    return call(this.adminPort, { target, host: 'localhost' })
  }

  async status<T = GatewayStatus>(): Promise<T> {
    return (await this.admin('/status')).json<T>()
  }

  /** Value of a series as it stands in /metrics; undefined where it is missing. */
  async metric(series: string): Promise<number | undefined> {
    const line = (await this.admin('/metrics')).text.split('\n').find((one) => one.startsWith(`${series} `))
    return line === undefined ? undefined : Number(line.slice(series.length + 1))
  }

  signal(signal: NodeJS.Signals): void {
    this.command.child.kill(signal)
  }

  async stop(): Promise<Ended> {
    this.signal('SIGTERM')
    const deadline = setTimeout(() => this.signal('SIGKILL'), STOP_MS)
    const ended = await this.command.ended
    clearTimeout(deadline)
    return ended
  }

  /** Stops it and holds what must be true of every run. */
  async close(): Promise<void> {
    const faults: string[] = []
    for (const page of this.options.secrets === undefined ? [] : ['/status', '/metrics']) {
      const { text } = await this.admin(page)
      faults.push(...this.secretsIn(text).map((secret) => `a secret is on ${page}: ${secret}`))
    }
    const { code, signal } = await this.stop()
    if (code !== 0) faults.push(`ended with ${signal ?? `code ${code}`}`)
    faults.push(...this.outputFaults())
    if (faults.length > 0) throw new Error(`${faults.join('\n')}\n--- log:\n${this.command.stderr.text.slice(-4000)}`)
  }

  private outputFaults(): string[] {
    const faults: string[] = []
    const seen = new Set<string>()
    for (const line of this.access.all) {
      if (line.text !== undefined) {
        // uWS itself, where stdout is the workers' as well.
        const ofNames = this.isolation === 'thread' && /^(finding|Browsed to SNI:) /.test(line.text)
        if (!ofNames) faults.push(`not an access line: ${line.text}`)
      } else if (seen.has(line.rid)) faults.push(`logged twice: ${JSON.stringify(line)}`)
      seen.add(line.rid)
    }
    for (const line of this.log.all) {
      if (line.text !== undefined) faults.push(`not a log line: ${line.text}`)
      else if (line.msg.startsWith('ended connections that nobody')) faults.push(JSON.stringify(line))
      else if (line.level >= 60) faults.push(`fatal: ${JSON.stringify(line)}`)
      else if (line.msg === 'worker died' && !this.options.losesWorkers) faults.push(`lost a worker: ${line.reason}`)
    }
    const output = this.command.stdout.text + this.command.stderr.text
    faults.push(...this.secretsIn(output).map((secret) => `a secret or signature is in the output: ${secret}`))
    return faults
  }

  private secretsIn(text: string): string[] {
    const { config, secrets = [] } = this.options
    return [...secretsOf(config), ...issuedSignatures(), ...secrets].filter((secret) => text.includes(secret))
  }
}

/** Kills all of its processes, none of which gets to react to the end of another. */
export async function killAll(gateway: Gateway): Promise<Ended> {
  const { pid, workers } = await gateway.status<{ pid: number; workers: { pid: number }[] }>()
  const pids = [...new Set([pid, ...workers.map((worker) => worker.pid)])]
  for (const each of pids) process.kill(each, 'SIGSTOP')
  for (const each of pids) process.kill(each, 'SIGKILL')
  const ended = await gateway.command.ended
  if (ended.signal !== 'SIGKILL') throw new Error(`the primary ended with ${ended.signal ?? `code ${ended.code}`}`)
  return ended
}

/** The part of /status that tests read. */
export interface GatewayStatus {
  readonly isolation: unknown
  readonly workers: readonly {
    readonly slot: number
    readonly pid: number
    readonly state: string
    readonly connections: number
    readonly inFlight: number
    readonly restarts: number
  }[]
}

function secretsOf(config: object): string[] {
  interface Secrets {
    readonly secret?: string | string[]
    readonly httpSignatureKeys?: Readonly<Record<string, { secret?: string }>>
  }
  const consumers = (config as { consumers?: Record<string, Secrets> }).consumers ?? {}
  return Object.values(consumers)
    .flatMap(({ secret = [], httpSignatureKeys = {} }) => [
      ...[secret].flat(),
      ...Object.values(httpSignatureKeys).flatMap((key) => key.secret ?? []),
    ])
    .filter((secret) => !/^(env|file):/.test(secret))
}

/**
 * With TIDEGATE_TEST_CLIENT=undici every service that says nothing of it is spoken to by undici: both clients are to
 * pass these tests.
 */
function withClient(config: object): object {
  const client = process.env.TIDEGATE_TEST_CLIENT
  const { services } = config as { services?: Record<string, object> }
  if (client === undefined || services === undefined) return config
  return {
    ...config,
    services: Object.fromEntries(Object.entries(services).map(([name, service]) => [name, { client, ...service }])),
  }
}

/** A configuration: one service, and one route to it that is open to everybody. */
export function forwardAll(origin: { readonly url: string }, route: object = {}): object {
  return {
    services: { origin: { endpoints: [origin.url] } },
    routes: [{ match: { path: '/' }, service: 'origin', auth: 'none', ...route }],
  }
}

/** Resolves once every worker listens. */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const file = writeConfig(withClient(options.config))
  const command = new Command(
    ['start', ...(options.args ?? [])],
    cleanEnvironment({
      TIDEGATE_CONFIG: file,
      TIDEGATE_WORKERS: String(options.workers ?? 2),
      ...options.env,
    }),
    options.listenFd,
    options.descriptors,
    options.cli,
  )
  const early = command.ended.then(({ code, signal }) => {
    throw new Error(`the gateway ended with ${signal ?? code} before it listened:\n${command.stderr.text}`)
  })
  // Only the race below asks; a later end is nobody's failure here.
  early.catch(() => {})
  try {
    const listening = await Promise.race([
      early,
      command.log.find((line) => line.msg === 'listening', 'listening', START_MS),
    ])
    const starting = command.log.all.find((line) => line.msg === 'starting')
    const { port, adminPort } = listening
    if (typeof port !== 'number' || typeof adminPort !== 'number') throw new Error('its listening line names no ports')
    const isolation = starting?.isolation === 'thread' ? 'thread' : 'process'
    return new Gateway(command, port, adminPort, isolation, options, file)
  } catch (error) {
    command.child.kill('SIGKILL')
    throw error
  }
}
