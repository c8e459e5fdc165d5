// One line of an access log (telemetry/access-log.ts writes it) as `tidegate simulate` uses it. Pure.
import { OUTCOMES, type OutcomeCode } from '../exchange/outcome.js'
import { EARLIEST_US, LATEST_US } from '../state/clock.js'

/** What a line says of one request. A text that the line does not have is ''. */
export interface Entry {
  /**
   * When the request's head was complete, on the gateway's clock, in µs. The line has the end in whole milliseconds, so
   * the request began at this time or up to 1 ms later.
   */
  readonly beginUs: number
  readonly totalUs: number
  readonly upstreamUs: number
  readonly rid: string
  readonly consumer: string
  readonly client: string
  readonly method: string
  readonly path: string
  readonly route: string
  readonly service: string
  readonly endpoint: string
  readonly status: number
  readonly code: OutcomeCode | ''
  readonly reason: string
  readonly fallback: OutcomeCode | ''
  readonly handler: string
  readonly limitReported: boolean
  readonly bytesIn: number
  readonly attempts: number
  /** Why the last attempt followed another one; '' too in logs of versions that do not tell. */
  readonly retried: string
}

const TEXTS = [
  'consumer',
  'client',
  'method',
  'path',
  'route',
  'service',
  'endpoint',
  'reason',
  'handler',
  'retried',
] as const

/** @returns what is wrong with it where it is no access line */
export function parseEntry(line: string): Entry | string {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(line) as Record<string, unknown>
  } catch {
    return 'is not JSON'
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'is not a JSON object'
  const { time, totalMs, status } = value
  const upstreamMs = value.upstreamMs ?? 0
  const attempts = value.attempts ?? 0
  const bytesIn = value.bytesIn ?? 0
  if (typeof value.rid !== 'string') return 'has no "rid": it is no access line of Tidegate'
  if (typeof value.method !== 'string' || typeof value.path !== 'string') return 'has no "method" and "path"'
  for (const key of TEXTS) {
    if (value[key] !== undefined && typeof value[key] !== 'string') return `"${key}" is not a text`
  }
  if (!isNumber(time) || Math.floor(time) * 1000 < EARLIEST_US || time * 1000 > LATEST_US)
    return '"time" is not in milliseconds between 2025 and 2060'
  if (!isNumber(totalMs) || totalMs < 0) return '"totalMs" is not a number of milliseconds'
  if (!isNumber(status) || status < 100 || status > 999) return '"status" is not a status'
  if (!isNumber(upstreamMs) || !isNumber(attempts) || !isNumber(bytesIn))
    return '"upstreamMs", "attempts" or "bytesIn" is not a number'
  const code = value.code ?? ''
  const fallback = value.fallback ?? ''
  if (!isCode(code) || !isCode(fallback)) return '"code" or "fallback" is not a code of this version (docs/errors.md)'
  const endUs = Math.floor(time) * 1000
  const totalUs = Math.min(Math.round(totalMs * 1000), endUs - EARLIEST_US)
  return {
    beginUs: endUs - totalUs,
    totalUs,
    upstreamUs: Math.round(upstreamMs * 1000),
    rid: value.rid,
    consumer: textOf(value.consumer),
    client: textOf(value.client),
    method: value.method,
    path: value.path,
    route: textOf(value.route),
    service: textOf(value.service),
    endpoint: textOf(value.endpoint),
    status,
    code,
    reason: textOf(value.reason),
    fallback,
    handler: textOf(value.handler),
    limitReported: value.limitReported === true,
    bytesIn,
    attempts,
    retried: textOf(value.retried),
  }
}

function isNumber(value: unknown): value is number {
  return typeof value === 'number' && Number.isFinite(value)
}

function isCode(value: unknown): value is OutcomeCode | '' {
  return value === '' || (typeof value === 'string' && Object.hasOwn(OUTCOMES, value))
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : ''
}

/** The limit that refused the request; '' where none did. */
export function refusingLimit({ code, reason }: Pick<Entry, 'code' | 'reason'>): string {
  return code === 'rate_limited'
    ? (/^limit (.*?)(?:: no room for another key|: too many requests in flight)?$/.exec(reason)?.[1] ?? '')
    : ''
}
