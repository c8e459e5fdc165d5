// Active health checks: the primary asks each endpoint of a service with `health` how it is, by HTTP (http-probe.ts) or
// TCP (tcp-probe.ts), and writes the result where every worker's balancer reads it (state/endpoint-table.ts). Sees no
// request; no worker waits for it.
//
// From `up`, `unhealthyAfter` failures in a row lead down; from `down`, `healthyAfter` successes lead up. An endpoint
// not checked yet counts as up, as with HAProxy, nginx and Traefik: a gateway that starts again must not refuse
// everybody until the first round is over. (Envoy and Consul hold it to be down.) Its first success alone settles that.
import type { Endpoint, Service } from '../config/compile.js'
import type { HealthCheck } from '../config/health.js'
import type { EndpointTable } from '../state/endpoint-table.js'
import type { Logger } from '../telemetry/log.js'
import { probeHttp } from './http-probe.js'
import { probeTcp, type Settle } from './tcp-probe.js'

export interface HealthChecksOptions {
  readonly table: EndpointTable
  readonly services: readonly Service[]
  readonly log: Logger
}

/** What /status shows beside the state. Times in ISO 8601. */
export interface HealthReport {
  /** When the endpoint came to be in its state. */
  readonly since: string
  /** Of the last check that failed, whatever came of it. */
  readonly lastFailure: { readonly at: string; readonly reason: string } | null
}

export interface HealthChecks {
  /** Another configuration: checks that are as before go on as they are. */
  update(services: readonly Service[]): void
  /** Null: the endpoint is not checked. */
  report(endpoint: Endpoint): HealthReport | null
  /** No check is begun or finished afterwards. What the table says stays. */
  stop(): void
}

/** Intervals vary by a tenth, so that the checks of many endpoints, or of many gateways, do not run in step. */
const JITTER = 0.1
/** Until the next try at a Unix socket whose backlog is full. */
const BACKLOG_PAUSE_MS = 25

export function startHealthChecks({ table, services, log }: HealthChecksOptions): HealthChecks {
  /** By Endpoint.slot. */
  let checks = new Map<number, Check>()
  let stopped = false
  function update(services: readonly Service[]): void {
    // A reload, or a change of endpoints, may still end while the gateway drains.
    if (stopped) return
    const before = checks
    checks = new Map()
    for (const service of services) {
      const { health } = service
      for (const endpoint of service.endpoints) {
        const { slot } = endpoint
        // What nobody looks at any more must not stay down for ever.
        if (health === null) table.setHealth(slot, 'unknown')
        else {
          const former = before.get(slot)
          const check = new Check(service, endpoint, health, table, log)
          if (former?.isSameAs(check)) {
            checks.set(slot, former)
            before.delete(slot)
          } else {
            checks.set(slot, check)
            check.start(former)
          }
        }
      }
    }
    for (const check of before.values()) check.stop()
  }
  update(services)
  return {
    update,
    report: ({ slot }) => checks.get(slot)?.report ?? null,
    stop() {
      stopped = true
      for (const check of checks.values()) check.stop()
    },
  }
}

class Check {
  report: HealthReport = { since: now(), lastFailure: null }
  private failures = 0
  private successes = 0
  private stopped = false
  private timer: NodeJS.Timeout | undefined
  private giveUp: () => void = () => {}

  constructor(
    private readonly service: Service,
    private readonly endpoint: Endpoint,
    private readonly rules: HealthCheck,
    private readonly table: EndpointTable,
    private readonly log: Logger,
  ) {}

  isSameAs(other: Check): boolean {
    return this.isOfSame(other) && this.settings === other.settings
  }

  private get settings(): string {
    return JSON.stringify([this.rules, this.service.tls, this.endpoint.serverName])
  }

  /** @param former the check of this slot so far: with other rules the endpoint's state stays what it is */
  start(former: Check | undefined): void {
    if (former?.isOfSame(this)) this.report = former.report
    this.timer = setTimeout(() => this.run(), Math.random() * JITTER * this.rules.intervalMs)
  }

  stop(): void {
    this.stopped = true
    clearTimeout(this.timer)
    this.giveUp()
  }

  private isOfSame({ service, endpoint }: Check): boolean {
    return this.service.name === service.name && this.endpoint.origin === endpoint.origin
  }

  private async run(): Promise<void> {
    const fault = await this.ask()
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
      let end = (): void => {}
      let settled = false
      const settle: Settle = (fault, code) => {
        if (settled) return
        if (code === 'EAGAIN') {
          // The backlog of a Unix socket is full: over TCP the kernel would wait for room there.
          retry = setTimeout(attempt, BACKLOG_PAUSE_MS)
          return
        }
        settled = true
        clearTimeout(deadline)
        clearTimeout(retry)
        end()
        resolve(fault)
      }
      const attempt = (): void => {
        end = this.probe(settle)
        if (settled) end()
      }
      // One deadline over everything, name look-up and connecting too; ending the probe ends it wherever it is.
      const deadline = setTimeout(() => settle(`no answer within ${timeoutMs} ms`), timeoutMs)
      this.giveUp = () => settle('stopped')
      attempt()
    })
  }

  private probe(settle: Settle): () => void {
    const { service, endpoint, rules } = this
    try {
      return rules.http === null
        ? probeTcp(endpoint, service.tls, settle)
        : probeHttp(endpoint, service.tls, rules.http, settle)
    } catch (error) {
      // TLS options that cannot be used, say.
      settle((error as Error).message)
      return () => {}
    }
  }

  private judge(fault: string): void {
    const { slot, origin } = this.endpoint
    const state = this.table.health(slot)
    if (fault === '') {
      this.failures = 0
      this.successes++
      if (state === 'up' || (state === 'down' && this.successes < this.rules.healthyAfter)) return
      this.table.setHealth(slot, 'up')
      this.report = { ...this.report, since: now() }
      this.log.info({ service: this.service.name, endpoint: origin, from: state }, 'endpoint is up')
      return
    }
    this.successes = 0
    this.failures++
    this.report = { ...this.report, lastFailure: { at: now(), reason: fault } }
    if (state === 'down' || this.failures < this.rules.unhealthyAfter) return
    this.table.setHealth(slot, 'down')
    this.report = { ...this.report, since: now() }
    this.log.warn({ service: this.service.name, endpoint: origin, from: state, reason: fault }, 'endpoint is down')
  }
}

function now(): string {
  return new Date().toISOString()
}
