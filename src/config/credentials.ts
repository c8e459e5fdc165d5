// The kinds of credentials that a route's `auth` may name: how each is asked for, and which request fields carry it. What checks them is
// in policy/, a file for each.

export const CREDENTIALS = {
  'x-m': { challenge: 'x-m', fields: ['x-m'], vouches: ['x-source', 'x-time'], signs: true },
  // RFC 9421 names no scheme; Accept-Signature is for what a signature should look like.
  'http-signature': { challenge: 'Signature', fields: ['signature', 'signature-input'], vouches: [], signs: true },
  // Its header has a name of its own: compile.ts adds it.
  'api-key': { challenge: 'ApiKey', fields: [], vouches: [], signs: false },
  // RFC 7617, 2.1: user names and passwords are UTF-8.
  basic: { challenge: 'Basic realm="tidegate", charset="UTF-8"', fields: ['authorization'], vouches: [], signs: false },
  // RFC 6750, 3. What is wrong with a token is in the log alone.
  jwt: { challenge: 'Bearer realm="tidegate"', fields: ['authorization'], vouches: [], signs: false },
  'client-certificate': { challenge: 'client-certificate', fields: [], vouches: [], signs: false },
} as const satisfies Record<string, Credentials>

interface Credentials {
  /** As it stands in WWW-Authenticate (RFC 9110, 11.6.1). */
  readonly challenge: string
  /** What stripCredentials takes off, in lower case: whoever has these could call in the consumer's name. */
  readonly fields: readonly string[]
  /** What else is checked with them and goes on to the service, which may rely on it. */
  readonly vouches: readonly string[]
  /** It is made for one request alone, and can be told from that of another. */
  readonly signs: boolean
}

export type CredentialKind = keyof typeof CREDENTIALS
export const CREDENTIAL_KINDS = Object.keys(CREDENTIALS) as [CredentialKind, ...CredentialKind[]]

/** How a route's `allow` tells a group from a consumer. */
export const GROUP = 'group:'

/** WWW-Authenticate for all kinds at once, each field behind a CRLF: clients read one challenge a field more reliably than a list. */
export function challengeFields(kinds: readonly CredentialKind[]): string {
  return kinds.map((kind) => `\r\nwww-authenticate: ${CREDENTIALS[kind].challenge}`).join('')
}
