// Why an attempt of a logged request failed, as retries.ts wants to know it: the way back from the reason in an access
// line to the failure that upstream/failure.ts made it of. Pure.
import { RETRY_REASONS, type RetryReason, type RetryRules } from '../config/retries.js'
import { DeadlineError, upstreamFailure } from '../upstream/failure.js'
import { LOST, type SendFacts, UNSENT } from '../upstream/retries.js'
import type { Entry } from './entry.js'
import type { LoggedAnswer } from './logged-answer.js'

export interface LoggedFailure {
  /** Null: it did not fail, or sending it again would not have helped. */
  readonly reason: RetryReason | null
  readonly sent: SendFacts | null
}

const NO_FAILURE: LoggedFailure = { reason: null, sent: null }

/** The failure of the attempt that the log has a retry of; null where it has none. Hedges are no failures. */
export function retriedFailure({ retried, attempts }: Entry): LoggedFailure | null {
  if (attempts < 2 || retried === 'out' || retried === 'hedge') return null
  const reason = RETRY_REASONS.find((one) => one === retried)
  // The client of the endpoint has sent it again by itself, or the log is of a version that does not tell.
  return reason === undefined ? null : { reason, sent: reason === 'connect' ? UNSENT : LOST }
}

/** What ended the request's last attempt. */
export function lastFailure({ kind, status }: LoggedAnswer, { reason }: Entry, rules: RetryRules): LoggedFailure {
  if (kind === 'answered') return rules.statuses.has(status) ? { reason: 'status', sent: null } : NO_FAILURE
  if (kind !== 'failed') return NO_FAILURE
  if (reason === 'connect timeout') return { reason: 'connect', sent: UNSENT }
  const { retry, sent } = upstreamFailure(errorOf(reason))
  return { reason: retry, sent }
}

function errorOf(reason: string): Error {
  if (reason.endsWith(' timeout')) return new DeadlineError(reason)
  if (reason === 'connection lost' || reason === '') return withCode('ECONNRESET')
  if (reason.startsWith('TLS: ')) return withCode(`ERR_SSL_${reason.slice(5)}`)
  return withCode(reason.replace('certificate refused: ', ''))
}

function withCode(code: string): Error {
  return Object.assign(new Error(code), { code })
}
