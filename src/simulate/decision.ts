// What became of a request: as the log has it, or as a configuration would have it. Pure.
import type { OutcomeCode } from '../exchange/outcome.js'
import { type Entry, refusingLimit } from './entry.js'

/** No service has answered this request in the log, so nobody knows what one would have answered. */
export const UNKNOWN = 0

export interface Decision {
  /** '' where no route took it. */
  readonly route: string
  /** The service that it was forwarded to; '' where it was to none. */
  readonly service: string
  /** UNKNOWN where it was forwarded and the log has no response. */
  readonly status: number
  /** Why the gateway answered and no service did. */
  readonly code: OutcomeCode | ''
  /** The limit that refused it, or the service whose breaker did. */
  readonly by: string
  /** What stood in for the service. */
  readonly fallback: OutcomeCode | ''
  /** A limit in report mode would have refused it. */
  readonly limitReported: boolean
  /** Attempts after one that failed. */
  readonly retries: number
  /** A retry that the service's budget refused. */
  readonly retriesRefused: number
}

/** `200`, `429 limit plan`, `503 breaker of orders`, `502 upstream_error` */
export function describeDecision({ status, code, by, fallback }: Decision): string {
  if (status === UNKNOWN) return 'forwarded'
  const instead = fallback === '' ? '' : ` in place of ${fallback}`
  if (code === '' || fallback !== '') return `${status}${instead}`
  if (by === '') return `${status} ${code}`
  return code === 'rate_limited' ? `${status} limit ${by}` : `${status} breaker of ${by}`
}

export function loggedDecision(entry: Entry): Decision {
  const { route, service, status, code, fallback, limitReported, attempts, retried } = entry
  return {
    route,
    // After a fallback the line has the service that stood in.
    service: attempts > 0 && fallback === '' ? service : '',
    status,
    code,
    by: code === 'breaker_open' ? service : refusingLimit(entry),
    fallback,
    limitReported,
    retries: retried === 'out' || retried === 'hedge' ? 0 : Math.max(0, attempts - 1),
    retriesRefused: 0,
  }
}
