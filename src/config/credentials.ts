// The kinds of credentials that a route's `auth` may name: the challenge for each, and the request headers that carry
// it. The checks are in policy/, one file per kind.

export const CREDENTIALS = {
  'x-m': { challenge: 'x-m', fields: ['x-m'], vouches: ['x-source', 'x-time'], signs: true },
  // RFC 9421 defines no authentication scheme; Accept-Signature describes the signature that is wanted.
  'http-signature': { challenge: 'Signature', fields: ['signature', 'signature-input'], vouches: [], signs: true },
  // Its header name is configurable: compile.ts adds it.
  'api-key': { challenge: 'ApiKey', fields: [], vouches: [], signs: false },
  // RFC 7617, 2.1: user names and passwords are UTF-8.
  basic: { challenge: 'Basic realm="tidegate", charset="UTF-8"', fields: ['authorization'], vouches: [], signs: false },
  // RFC 6750, 3. Only the log says what is wrong with a token.
  jwt: { challenge: 'Bearer realm="tidegate"', fields: ['authorization'], vouches: [], signs: false },
  'client-certificate': { challenge: 'client-certificate', fields: [], vouches: [], signs: false },
} as const satisfies Record<string, Credentials>

interface Credentials {
  /** As it stands in WWW-Authenticate (RFC 9110, 11.6.1). */
  readonly challenge: string
  /** Headers that stripCredentials removes, in lower case: with them, a service could impersonate the consumer. */
  readonly fields: readonly string[]
  /** Further headers that the check covers. They are forwarded, and the service may rely on them. */
  readonly vouches: readonly string[]
  /** The credential is made for a single request and identifies it. */
  readonly signs: boolean
}

export type CredentialKind = keyof typeof CREDENTIALS
export const CREDENTIAL_KINDS = Object.keys(CREDENTIALS) as [CredentialKind, ...CredentialKind[]]

/** Marks a group, rather than a consumer, in a route's `allow`. */
export const GROUP = 'group:'

/**
 * One WWW-Authenticate header per kind, each preceded by a CRLF: clients parse single challenges more reliably than a
 * list.
 */
export function challengeFields(kinds: readonly CredentialKind[]): string {
  return kinds.map((kind) => `\r\nwww-authenticate: ${CREDENTIALS[kind].challenge}`).join('')
}
