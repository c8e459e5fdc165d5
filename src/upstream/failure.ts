// The one place that turns what went wrong with an upstream into the client's outcome.

import { type OutcomeCode, Rejection } from '../exchange/outcome.js'
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

/** Of Node's tls, which has OpenSSL's X509_V_ERR_… without the prefix. A failed check of the name has a code of its own. */
const certificateRefused = new Set([
  'CERT_HAS_EXPIRED',
  'CERT_NOT_YET_VALID',
  'CERT_REVOKED',
  'CERT_REJECTED',
  'CERT_UNTRUSTED',
  'CERT_SIGNATURE_FAILURE',
  'CERT_CHAIN_TOO_LONG',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'ERR_TLS_CERT_ALTNAME_INVALID',
  'HOSTNAME_MISMATCH',
  'INVALID_CA',
  'INVALID_PURPOSE',
  'SELF_SIGNED_CERT_IN_CHAIN',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
])

/** Not of the upstream's making, nor of the network's: an exception in the client that speaks to it. */
export function isMistake(error: Error): boolean {
  if (error instanceof TypeError || error instanceof RangeError || error instanceof ReferenceError) return true
  return 'code' in error && error.code === 'ERR_ASSERTION'
}

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
  // Before a byte of the request was written.
  if (certificateRefused.has(code)) return prepare('upstream_error', `certificate refused: ${code}`, 'always')
  // The service's alert: it does not like what we are, or did not show. Where it is an answer to our certificate, TLS 1.3 tells late.
  if (code.startsWith('ERR_SSL_')) return prepare('upstream_error', `TLS: ${code.slice(8)}`, 'idempotent')
  if (neverReached.has(code)) return prepare('upstream_error', code, 'always')
  if (error instanceof errors.SocketError || code === 'ECONNRESET' || code === 'EPIPE') {
    // The lean client says whether the connection had been used before, and has tried again by then where that was why it was lost.
    return prepare('upstream_error', 'connection lost', 'reusedConnection' in error ? 'never' : 'idempotent')
  }
  return prepare('upstream_error', code, 'never')
}
