// The admin listener, in the primary and on no request's way: probes, status, metrics and commands for operators. It
// shows what it is given and decides nothing.
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Logger } from '../telemetry/log.js'
import { hostName, refusalOf } from './admin-callers.js'
import type { DrainResult } from './operator.js'
import type { ReloadResult } from './reload.js'

export interface AdminOptions {
  readonly host: string
  /** Its names besides `host`, its address and localhost. */
  readonly names: readonly string[]
  /** 0 chooses a free port. */
  readonly port: number
  /** Whether the gateway serves requests now; `why` says what is missing. */
  readonly ready: () => { readonly ready: boolean; readonly why: string }
  readonly metrics: () => string | Promise<string>
  /** Anything JSON can hold. */
  readonly status: () => object
  /** Holds a service's breaker, or releases it (null). Returns false if there is no such breaker. */
  readonly holdBreaker: (service: string, as: 'open' | 'closed' | null) => boolean
  /** Drains an endpoint of a service, or takes that back (`on` false). */
  readonly drainEndpoint: (service: string, endpoint: string, on: boolean) => DrainResult
  /** Reads the configuration again. */
  readonly reload: () => Promise<ReloadResult>
  /**
   * Reopens the log files; resolves when nothing writes to the former ones, with a reason for each that stays in use.
   */
  readonly reopenLogs: () => Promise<readonly string[]>
  /** Begins to restart the workers one by one. Returns '', or why it does not. */
  readonly restart: () => string
  readonly log: Logger
}

export interface Admin {
  readonly port: number
  /** Resolves when the port is free. Open connections are cut. */
  close(): Promise<void>
}

interface Answer {
  readonly status: number
  readonly type: string
  readonly body: string
}

type Handler = (req: IncomingMessage) => Answer | Promise<Answer>

const TEXT = 'text/plain; charset=utf-8'
const METRICS = 'text/plain; version=0.0.4; charset=utf-8'
const JSON_TYPE = 'application/json'

/** RFC 9457. Admin responses have no request id, because they are not logged. */
function problem(status: number, title: string, detail: string): Answer {
  return {
    status,
    type: 'application/problem+json',
    body: `${JSON.stringify({ type: 'about:blank', title, status, detail })}\n`,
  }
}

/**
 * `POST /breakers?service=NAME&hold=open|closed|none`. Held open, the breaker refuses every call; held closed, none,
 * until it is released. The workers see the hold at once, and it survives a restart.
 */
function holdBreaker(req: IncomingMessage, { holdBreaker }: AdminOptions): Answer {
  const query = new URL(req.url ?? '/', 'http://admin').searchParams
  const service = query.get('service') ?? ''
  const hold = query.get('hold') ?? ''
  if (hold !== 'open' && hold !== 'closed' && hold !== 'none') {
    return problem(400, 'Bad Request', 'hold must be open, closed or none')
  }
  if (!holdBreaker(service, hold === 'none' ? null : hold)) {
    return problem(404, 'Not Found', `no service with a breaker is named "${service}"`)
  }
  return { status: 200, type: JSON_TYPE, body: `${JSON.stringify({ service, hold })}\n` }
}

/**
 * `POST /endpoints?service=NAME&endpoint=ORIGIN&drain=on|off`. A drained endpoint gets no new request until it is taken
 * back. The workers see it at once, and it survives a restart.
 */
function drainEndpoint(req: IncomingMessage, { drainEndpoint }: AdminOptions): Answer {
  const query = new URL(req.url ?? '/', 'http://admin').searchParams
  const service = query.get('service') ?? ''
  const drain = query.get('drain') ?? ''
  if (drain !== 'on' && drain !== 'off') return problem(400, 'Bad Request', 'drain must be on or off')
  const result = drainEndpoint(service, query.get('endpoint') ?? '', drain === 'on')
  if ('refused' in result) {
    if (result.refused === 'unknown') return problem(404, 'Not Found', result.why)
    return problem(409, 'Conflict', result.why)
  }
  return { status: 200, type: JSON_TYPE, body: `${JSON.stringify({ service, ...result, drain })}\n` }
}

/**
 * `POST /reload`: responds when every worker serves the new configuration; with 422 and all errors if it is invalid,
 * and then nothing has changed.
 */
async function reload({ reload }: AdminOptions): Promise<Answer> {
  const result = await reload()
  return { status: result.ok ? 200 : 422, type: JSON_TYPE, body: `${JSON.stringify(result, null, 2)}\n` }
}

/** `POST /restart`: replaces the workers one by one; /status and the log show the progress. */
function restart({ restart }: AdminOptions): Answer {
  const problemText = restart()
  if (problemText !== '') return problem(409, 'Conflict', problemText)
  return { status: 202, type: JSON_TYPE, body: `${JSON.stringify({ restarting: true })}\n` }
}

/** `POST /reopen`: responds when no worker writes to its former log files; 500 with the reason if one still does. */
async function reopen({ reopenLogs }: AdminOptions): Promise<Answer> {
  const problems = await reopenLogs()
  const reopened = problems.length === 0
  return { status: reopened ? 200 : 500, type: JSON_TYPE, body: `${JSON.stringify({ reopened, problems })}\n` }
}

/**
 * Starts listening.
 * @throws Error naming TIDEGATE_ADMIN_PORT or TIDEGATE_ADMIN_HOST if it cannot
 */
export function startAdmin(options: AdminOptions): Promise<Admin> {
  const { host, port, log } = options
  const names = new Set([host, ...options.names].map(hostName))
  /** By path, then method. HEAD is handled like GET; node:http leaves the body out. */
  const resources = new Map<string, ReadonlyMap<string, Handler>>([
    ['/livez', new Map([['GET', () => ({ status: 200, type: TEXT, body: 'live\n' })]])],
    ['/readyz', new Map([['GET', () => readyz(options)]])],
    ['/breakers', new Map([['POST', (req) => holdBreaker(req, options)]])],
    ['/endpoints', new Map([['POST', (req) => drainEndpoint(req, options)]])],
    ['/reload', new Map([['POST', () => reload(options)]])],
    ['/restart', new Map([['POST', () => restart(options)]])],
    ['/reopen', new Map([['POST', () => reopen(options)]])],
    ['/metrics', new Map([['GET', async () => ({ status: 200, type: METRICS, body: await options.metrics() })]])],
    [
      '/status',
      new Map([
        ['GET', () => ({ status: 200, type: JSON_TYPE, body: `${JSON.stringify(options.status(), null, 2)}\n` })],
      ]),
    ],
  ])
  // Requests are short, and half-open connections must not gather here.
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000 }, (req, res) => {
    // An unexpected body is discarded, so that the connection can go on.
    req.resume()
    const refusal = refusalOf(req, names)
    if (refusal !== null) return send(res, problem(refusal.status, refusal.title, refusal.detail), {})
    answer(resources, req, res).catch((error: unknown) => {
      log.error({ err: error, path: req.url }, 'admin: cannot answer')
      send(res, problem(500, 'Internal Server Error', 'see the log'), {})
    })
  })
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(listenError(error, host, port)))
    server.listen({ host, port }, () => {
      server.removeAllListeners('error')
      // A failing accept (EMFILE) must not end the primary.
      server.on('error', (err) => log.error({ err }, 'admin: listener'))
      resolve({ port: (server.address() as AddressInfo).port, close: () => close(server) })
    })
  })
}

function readyz({ ready }: AdminOptions): Answer {
  const now = ready()
  return now.ready ? { status: 200, type: TEXT, body: 'ready\n' } : problem(503, 'Service Unavailable', now.why)
}

async function answer(
  resources: ReadonlyMap<string, ReadonlyMap<string, Handler>>,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const target = req.url ?? '/'
  const query = target.indexOf('?')
  const methods = resources.get(query < 0 ? target : target.slice(0, query))
  if (methods === undefined) {
    send(res, problem(404, 'Not Found', `known paths: ${[...resources.keys()].join(', ')}`), {})
    return
  }
  const handler = methods.get(req.method === 'HEAD' ? 'GET' : (req.method ?? ''))
  if (handler === undefined) {
    const allow = [...methods.keys()].flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ')
    send(res, problem(405, 'Method Not Allowed', `allowed: ${allow}`), { allow })
    return
  }
  send(res, await handler(req), {})
}

function send(res: ServerResponse, { status, type, body }: Answer, headers: Record<string, string>): void {
  res.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  })
  res.end(body)
}

function listenError(error: NodeJS.ErrnoException, host: string, port: number): Error {
  const at = `${host.includes(':') ? `[${host}]` : host}:${port}`
  if (error.code === 'EADDRINUSE') return new Error(`TIDEGATE_ADMIN_PORT: ${at} is in use`, { cause: error })
  if (error.code === 'EACCES')
    return new Error(`TIDEGATE_ADMIN_PORT: no permission to listen on ${at}`, { cause: error })
  return new Error(`TIDEGATE_ADMIN_HOST: cannot listen on ${at}: ${error.message}`, { cause: error })
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve())
    server.closeAllConnections()
  })
}
