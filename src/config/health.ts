// Active health checks as the primary uses them: types, and the service's `health` compiled. Pure.
import type { HealthConfig } from './schema/health.js'

export interface HealthCheck {
  /** Null: connecting is enough, with the TLS handshake for https. */
  readonly http: HttpCheck | null
  readonly intervalMs: number
  readonly timeoutMs: number
  readonly healthyAfter: number
  readonly unhealthyAfter: number
}

export interface HttpCheck {
  readonly method: 'GET' | 'HEAD'
  readonly path: string
  /** Null: the endpoint's own. */
  readonly host: string | null
  /** Ranges of the expected statuses, both ends included. */
  readonly statuses: readonly (readonly [number, number])[]
  /** What the body must contain, in UTF-8. '' asks for nothing. */
  readonly text: string
}

const SUCCESSFUL = [200, 299] as const

export function compileHealth(health: HealthConfig | undefined): HealthCheck | null {
  if (health === undefined) return null
  const { type, method = 'GET', path = '/', host = null, statuses = [SUCCESSFUL], body: text = '' } = health
  return {
    http: type === 'tcp' ? null : { method, path, host, statuses, text },
    intervalMs: health.interval,
    timeoutMs: health.timeout,
    healthyAfter: health.healthyAfter,
    unhealthyAfter: health.unhealthyAfter,
  }
}
