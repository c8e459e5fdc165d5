// The one place that turns what went wrong with an upstream into the client's outcome.

import { type OutcomeCode, Rejection } from '../outcome.js'
import { errors } from './undici.js'

export interface UpstreamFailure {
  readonly rejection: Rejection
  /**
   * Whether another attempt is safe: `always` – nothing reached the upstream; `idempotent` – it may have acted on the request, so only
   * where the method allows it (RFC 9110, 9.2.2); `never`.
   */
  readonly retry: 'always' | 'idempotent' | 'never'
  /** Whether the upstream is to blame: what the breaker counts. */
  readonly upstreamAtFault: boolean
}

/** The reason passed to undici's abort when a deadline passes. */
export class DeadlineError extends Error {
  readonly code = 'TIDEGATE_DEADLINE'
}

const prepared = new Map<string, UpstreamFailure>()

function prepare(
  code: OutcomeCode,
  reason: string,
  retry: UpstreamFailure['retry'],
  upstreamAtFault = true,
): UpstreamFailure {
  const key = `${code} ${reason} ${retry}`
  let failure = prepared.get(key)
  if (failure === undefined) {
    failure = Object.freeze({ rejection: new Rejection(code, reason), retry, upstreamAtFault })
    prepared.set(key, failure)
  }
  return failure
}

const neverReached = new Set(['ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTFOUND', 'EAI_AGAIN', 'EADDRNOTAVAIL'])

/** `error` is what undici reported, or the DeadlineError it was aborted with. */
export function upstreamFailure(error: Error): UpstreamFailure {
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name
  if (error instanceof DeadlineError) return prepare('upstream_timeout', error.message, 'never')
  if (error instanceof errors.ConnectTimeoutError) return prepare('upstream_timeout', 'connect timeout', 'always')
  // The request could not be written as it is: a header value or a length that undici refuses.
  if (error instanceof errors.InvalidArgumentError || error instanceof errors.NotSupportedError) {
    return prepare('bad_request', 'request cannot be forwarded', 'never', false)
  }
  if (error instanceof errors.RequestContentLengthMismatchError) {
    return prepare('bad_request', 'body does not match its content-length', 'never', false)
  }
  if (neverReached.has(code)) return prepare('upstream_error', code, 'always')
  if (error instanceof errors.SocketError || code === 'ECONNRESET' || code === 'EPIPE') {
    // The lean client says whether the connection had been used before, and has tried again by then where that was why it was lost.
    return prepare('upstream_error', 'connection lost', 'reusedConnection' in error ? 'never' : 'idempotent')
  }
  return prepare('upstream_error', code, 'never')
}
