// Active health checks: the primary asks each endpoint of a service with `health` how it is and writes the answer where
// every worker's selection reads it (state/endpoint-table.ts). Sees no request; no worker waits for it.
//
// A check is a GET of the path on a connection of its own, so that accepting is checked too and a kept-alive connection
// the endpoint closed meanwhile is no fault. 2xx within the timeout is well, all else is not: a redirect is not
// followed, for its target is not the endpoint. From `up`, `unhealthyAfter` failures in a row lead down; from `down`,
// `healthyAfter` successes lead up.
//
// An endpoint not checked yet counts as up, as with HAProxy, nginx and Traefik: a gateway that starts again must not
// refuse everybody until the first round is over. (Envoy and Consul hold it to be down.) Its first success alone
// settles that.
import { type ClientRequest, get as getHttp, type IncomingMessage } from 'node:http'
import { get as getHttps } from 'node:https'
import type { ConnectionOptions as TlsOptions } from 'node:tls'
import type { Endpoint, HealthCheck, Service, UpstreamTls } from '../config/compile.js'
import type { EndpointTable } from '../state/endpoint-table.js'
import type { Logger } from '../telemetry/log.js'

export interface HealthChecksOptions {
  readonly table: EndpointTable
  readonly services: readonly Service[]
  readonly log: Logger
}

export interface HealthChecks {
  /** Another configuration: checks that are as before go on as they are. */
  update(services: readonly Service[]): void
  /** No check is begun or finished afterwards. What the table says stays. */
  stop(): void
}

/** Intervals vary by a tenth, so that the checks of many endpoints, or of many gateways, do not run in step. */
const JITTER = 0.1
/** Until the next try at a Unix socket whose backlog is full. */
const BACKLOG_PAUSE_MS = 25
/** More of an answer's body than this is not read. */
const MAX_BODY_BYTES = 65_536

export function startHealthChecks({ table, services, log }: HealthChecksOptions): HealthChecks {
  let checks = new Map<string, Check>()
  let stopped = false
  function update(services: readonly Service[]): void {
    // A reload, or a change of endpoints, may still end while the gateway drains.
    if (stopped) return
    const before = checks
    checks = new Map()
    for (const service of services) {
      const { health } = service
      for (const endpoint of service.endpoints) {
        // What nobody looks at any more must not stay down for ever.
        if (health === null) table.setHealth(endpoint.slot, 'unknown')
        else {
          const key = JSON.stringify([service.name, endpoint.slot, endpoint.origin, health])
          checks.set(key, before.get(key) ?? new Check(service, endpoint, health, table, log))
          before.delete(key)
        }
      }
    }
    for (const check of before.values()) check.stop()
  }
  update(services)
  return {
    update,
    stop() {
      stopped = true
      for (const check of checks.values()) check.stop()
    },
  }
}

class Check {
  private failures = 0
  private successes = 0
  private stopped = false
  private timer: NodeJS.Timeout
  private request: ClientRequest | null = null

  constructor(
    private readonly service: Service,
    private readonly endpoint: Endpoint,
    private readonly rules: HealthCheck,
    private readonly table: EndpointTable,
    private readonly log: Logger,
  ) {
    this.timer = setTimeout(() => this.run(), Math.random() * JITTER * rules.intervalMs)
  }

  stop(): void {
    this.stopped = true
    clearTimeout(this.timer)
    this.request?.destroy()
  }

  private async run(): Promise<void> {
    const fault = await this.ask().catch((error: Error) => error.message)
    if (this.stopped) return
    this.judge(fault)
    const { intervalMs } = this.rules
    this.timer = setTimeout(() => this.run(), intervalMs * (1 - JITTER + 2 * JITTER * Math.random()))
  }

  /** What is wrong with the endpoint; '' if nothing. */
  private ask(): Promise<string> {
    const { timeoutMs } = this.rules
    return new Promise((resolve) => {
      let retry: NodeJS.Timeout | undefined
      // One deadline over everything, name look-up and connecting too; destroying the request ends it wherever it is.
      const deadline = setTimeout(() => settle(`no answer within ${timeoutMs} ms`), timeoutMs)
      const settle = (fault: string): void => {
        clearTimeout(deadline)
        clearTimeout(retry)
        this.request?.destroy()
        resolve(fault)
      }
      const attempt = (): void => {
        if (this.stopped) return settle('stopped')
        const request = this.send((response) => judgeResponse(response, settle))
        this.request = request
        request.on('error', (error: NodeJS.ErrnoException) => {
          if (this.request !== request) return
          if (error.code !== 'EAGAIN' || this.stopped) return settle(error.message || (error.code ?? error.name))
          // The backlog of a Unix socket is full: over TCP the kernel would wait for room there.
          retry = setTimeout(attempt, BACKLOG_PAUSE_MS)
        })
      }
      attempt()
    })
  }

  private send(take: (response: IncomingMessage) => void): ClientRequest {
    const { endpoint, service, rules } = this
    const headers = { 'user-agent': 'tidegate-health', accept: '*/*' }
    const options = { agent: false as const, headers }
    const { socketPath, authority } = endpoint
    if (socketPath !== null) return getHttp(`http://${authority}${rules.path}`, { ...options, socketPath }, take)
    const url = endpoint.origin + rules.path
    return url.startsWith('https:')
      ? getHttps(url, { ...options, ...tlsOptions(service.tls) }, take)
      : getHttp(url, options, take)
  }

  private judge(fault: string): void {
    const { slot, origin } = this.endpoint
    const state = this.table.health(slot)
    if (fault === '') {
      this.failures = 0
      this.successes++
      if (state === 'up' || (state === 'down' && this.successes < this.rules.healthyAfter)) return
      this.table.setHealth(slot, 'up')
      this.log.info({ service: this.service.name, endpoint: origin, from: state }, 'endpoint is up')
      return
    }
    this.successes = 0
    this.failures++
    if (state === 'down' || this.failures < this.rules.unhealthyAfter) return
    this.table.setHealth(slot, 'down')
    this.log.warn({ service: this.service.name, endpoint: origin, from: state, reason: fault }, 'endpoint is down')
  }
}

function judgeResponse(response: IncomingMessage, settle: (fault: string) => void): void {
  const { statusCode = 0 } = response
  const fault = statusCode >= 200 && statusCode < 300 ? '' : `status ${statusCode}`
  let bytes = 0
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > MAX_BODY_BYTES) settle(fault)
  })
  response.on('end', () => settle(fault))
  response.on('error', (error) => settle(error.message))
}

function tlsOptions({ ca, cert, key, serverName, verify }: UpstreamTls): TlsOptions {
  return { ca, cert, key, rejectUnauthorized: verify, ...(serverName !== undefined && { servername: serverName }) }
}
