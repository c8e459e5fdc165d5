// The one place that turns what went wrong with an upstream into the client's outcome.

import type { RetryReason } from '../config/retries.js'
import { type OutcomeCode, Rejection } from '../exchange/outcome.js'
import { LOST, type SendFacts, UNSENT } from './retries.js'
import { errors } from './undici.js'

export interface UpstreamFailure {
  readonly rejection: Rejection
  /** As what retries.ts counts it; null where sending again would not help. */
  readonly retry: RetryReason | null
  /** What retries.ts wants to know, too; null where the client does not tell, or the same endpoint is of no use. */
  readonly sent: SendFacts | null
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
  retry: RetryReason | null,
  sent: SendFacts | null,
  upstreamAtFault = true,
): UpstreamFailure {
  const key = `${code} ${reason} ${sent?.written}`
  let failure = prepared.get(key)
  if (failure === undefined) {
    failure = Object.freeze({ rejection: new Rejection(code, reason), retry, sent, upstreamAtFault })
    prepared.set(key, failure)
  }
  return failure
}

const neverReached = new Set([
  'ECONNREFUSED',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EAI_AGAIN',
  'EADDRNOTAVAIL',
  // Of a Unix socket: no file of that name, or none that the gateway's user may connect to.
  'ENOENT',
  'ENOTDIR',
  'ELOOP',
  'EACCES',
  'EPROTOTYPE',
])

/**
 * Of Node's tls, which has OpenSSL's X509_V_ERR_… without the prefix. A failed check of the name has a code of its own.
 */
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
  if (error instanceof DeadlineError) return prepare('upstream_timeout', error.message, 'timeout', null)
  if (error instanceof errors.ConnectTimeoutError)
    return prepare('upstream_timeout', 'connect timeout', 'connect', UNSENT)
  // The request could not be written as it is: a header value or a length that undici refuses.
  if (error instanceof errors.InvalidArgumentError || error instanceof errors.NotSupportedError) {
    return prepare('bad_request', 'request cannot be forwarded', null, null, false)
  }
  if (error instanceof errors.RequestContentLengthMismatchError) {
    return prepare('bad_request', 'body does not match its content-length', null, null, false)
  }
  // Before a byte of the request was written.
  if (certificateRefused.has(code)) return prepare('upstream_error', `certificate refused: ${code}`, 'connect', UNSENT)
  // The service's alert: it does not like what we are, or did not show. Where it is an answer to our certificate, TLS
  // 1.3 tells late.
  if (code.startsWith('ERR_SSL_')) return prepare('upstream_error', `TLS: ${code.slice(8)}`, 'reset', LOST)
  if (neverReached.has(code)) return prepare('upstream_error', code, 'connect', UNSENT)
  if (error instanceof errors.SocketError || code === 'ECONNRESET' || code === 'EPIPE') {
    const lost = prepare('upstream_error', 'connection lost', 'reset', LOST)
    // The lean client says what it knows (http1/connection.ts).
    return 'reusedConnection' in error ? { ...lost, sent: error as unknown as SendFacts } : lost
  }
  // Not HTTP: the same endpoint would say the same again.
  return prepare('upstream_error', code, error instanceof errors.HTTPParserError ? 'reset' : null, null)
}
