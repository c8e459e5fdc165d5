// Signs requests by RFC 9421, from its text and not from src/policy. What is covered, and with which value, the caller
// says line by line: so a test can sign anything.
import { constants, createHash, createHmac, createPrivateKey, sign } from 'node:crypto'
import type { RequestParts } from './raw-client.js'
import { KEYS, type KeyId } from './rfc9421.js'

/** Component identifiers as they stand in Signature-Input, and values, a character a byte. */
export type Lines = readonly (readonly [identifier: string, value: string])[]

export interface SigningOptions {
  readonly keyid?: KeyId
  readonly label?: string
  /** In place of those that gateways want by default. */
  readonly lines?: Lines
  /** In place of created (now) and keyid; each begins with ';'. */
  readonly parameters?: string
  /** Besides. */
  readonly more?: string
}

export const now = (): number => Math.floor(Date.now() / 1000)

export function contentDigest(body: string | Buffer, algorithm: 'sha-256' | 'sha-512' = 'sha-256'): string {
  return `${algorithm}=:${createHash(algorithm.replace('-', '')).update(body).digest('base64')}:`
}

const HOST = 'demo.test'

/** What a request has, in the order in which RFC 9421 lists it. */
export function linesOf(request: RequestParts, digest?: string): Lines {
  const { method = 'GET', target = '/', host = HOST } = request
  const [path, query] = target.split(/\?(.*)/s) as [string, string | undefined]
  return [
    ['"@method"', method],
    ['"@authority"', host ?? ''],
    ['"@path"', path],
    ...(query === undefined ? [] : [['"@query"', `?${query}`] as const]),
    ...(digest === undefined ? [] : [['"content-digest"', digest] as const]),
  ]
}

export function signMessage(
  lines: Lines,
  { keyid = 'test-key-ed25519', label = 'sig1', parameters, more = '' }: SigningOptions,
) {
  const input = `(${lines.map(([identifier]) => identifier).join(' ')})${parameters ?? `;created=${now()};keyid="${keyid}"`}${more}`
  const base = [...lines, ['"@signature-params"', input] as const]
    .map(([name, value]) => `${name}: ${value}`)
    .join('\n')
  return { 'signature-input': `${label}=${input}`, signature: `${label}=:${signed(keyid, base).toString('base64')}:` }
}

function signed(keyid: KeyId, base: string): Buffer {
  const key = KEYS[keyid]
  const data = Buffer.from(base, 'latin1')
  if (key.algorithm === 'hmac-sha256')
    return createHmac('sha256', Buffer.from(key.secret, 'base64')).update(data).digest()
  if (key.algorithm === 'ed25519') return sign(null, data, key.privateKey)
  if (key.algorithm === 'ecdsa-p256-sha256')
    return sign('sha256', data, { key: key.privateKey, dsaEncoding: 'ieee-p1363' })
  const padding = constants.RSA_PKCS1_PSS_PADDING
  return sign('sha512', data, { key: createPrivateKey(key.privateKey), padding, saltLength: 64 })
}

/** The request with a signature over all that gateways want by default, and the digest of its body. */
export function signedMessage(request: RequestParts, options: SigningOptions = {}): RequestParts {
  const { body, chunks } = request
  const whole = chunks === undefined ? body : Buffer.concat(chunks.map((chunk) => Buffer.from(chunk as string)))
  const digest = whole === undefined ? undefined : contentDigest(whole)
  const headers = {
    ...(digest === undefined ? {} : { 'content-digest': digest }),
    ...signMessage(options.lines ?? linesOf(request, digest), options),
    ...request.headers,
  }
  return { ...request, headers }
}

/** What the configuration says of a consumer with the RFC's keys. */
export function httpSignatureKeys(...ids: KeyId[]): object {
  return Object.fromEntries(
    ids.map((id) => {
      const { algorithm, ...key } = KEYS[id]
      return 'secret' in key
        ? [id, { algorithm, secret: key.secret, encoding: 'base64' }]
        : [id, { algorithm, publicKey: key.publicKey }]
    }),
  )
}
