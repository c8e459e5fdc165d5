// Every way an exchange can end other than with the response of its handler: the closed list of codes, and the one
// table from code to status. Every phase reads it. docs/errors.md repeats the table, and a test holds the two equal.

import { StatusLine } from './response-head.js'

/** Status and RFC 9457 title of each code. 499 is for the log alone: nothing is sent to a client that left. */
export const OUTCOMES = {
  bad_request: { status: 400, title: 'Bad Request' },
  unauthorized: { status: 401, title: 'Unauthorized' },
  forbidden: { status: 403, title: 'Forbidden' },
  no_route: { status: 404, title: 'Not Found' },
  request_timeout: { status: 408, title: 'Request Timeout' },
  body_too_large: { status: 413, title: 'Content Too Large' },
  uri_too_long: { status: 414, title: 'URI Too Long' },
  expectation_failed: { status: 417, title: 'Expectation Failed' },
  rate_limited: { status: 429, title: 'Too Many Requests' },
  headers_too_large: { status: 431, title: 'Request Header Fields Too Large' },
  client_closed: { status: 499, title: 'Client Closed Request' },
  internal_error: { status: 500, title: 'Internal Server Error' },
  not_implemented: { status: 501, title: 'Not Implemented' },
  upstream_error: { status: 502, title: 'Bad Gateway' },
  breaker_open: { status: 503, title: 'Service Unavailable' },
  no_endpoint: { status: 503, title: 'Service Unavailable' },
  keys_unavailable: { status: 503, title: 'Service Unavailable' },
  overloaded: { status: 503, title: 'Service Unavailable' },
  deadline_exceeded: { status: 504, title: 'Gateway Timeout' },
  upstream_timeout: { status: 504, title: 'Gateway Timeout' },
  version_not_supported: { status: 505, title: 'HTTP Version Not Supported' },
} as const satisfies Record<string, { status: number; title: string }>

export type OutcomeCode = keyof typeof OUTCOMES

/** The shared counters are indexed by the position in this list. */
export const OUTCOME_CODES = Object.keys(OUTCOMES) as OutcomeCode[]

/**
 * A refusal decided on the request's way. Prepared once where possible; returned, never thrown. `reason` goes into the
 * access log only: the client is not told what exactly was wrong with a credential.
 */
export class Rejection {
  readonly code: OutcomeCode
  readonly status: number
  readonly reason: string
  readonly line: StatusLine
  /** The problem body up to the request id. */
  readonly bodyHead: string
  /** The connection cannot carry another request: its framing is in doubt or its body was left unread. */
  readonly closesConnection: boolean
  /**
   * The credentials were checked and proved wrong, which limits `on: failedAuth` count. Missing, unreadable or expired
   * ones are no guess.
   */
  readonly isGuess: boolean

  constructor(code: OutcomeCode, reason: string, closesConnection = false, isGuess = false) {
    const { status, title } = OUTCOMES[code]
    this.code = code
    this.status = status
    this.line = new StatusLine(status, title)
    this.reason = reason
    this.closesConnection = closesConnection
    this.isGuess = isGuess
    this.bodyHead = `{"type":"about:blank","title":"${title}","status":${status},"code":"${code}","rid":"`
  }
}

/** For credentials that were checked and proved wrong. */
export function wrongCredentials(reason: string): Rejection {
  return new Rejection('unauthorized', reason, false, true)
}
