// RFC 9421 signatures in the configuration: keys, and what a route requires of a signature. Runs at start only.
import { createPublicKey, type KeyObject } from 'node:crypto'
import { parseItem, serializeItem } from 'structured-headers'
import { type Kept, keepSharedSecret } from './kept.js'

export const SIGNATURE_ALGORITHMS = ['hmac-sha256', 'ed25519', 'ecdsa-p256-sha256', 'rsa-pss-sha512'] as const
type SignatureAlgorithm = (typeof SIGNATURE_ALGORITHMS)[number]

export interface HttpSignatureKey {
  /** The keyid parameter. Unique over all consumers. */
  readonly id: string
  readonly algorithm: SignatureAlgorithm
  /** Base64 of the secret for hmac-sha256, else a PEM public key. */
  readonly material: string
}

/** What a route requires of a signature. */
export interface HttpSignatureRules {
  /**
   * Component identifiers as Signature-Input spells them; null requires the method and the whole target, in any valid
   * spelling.
   */
  readonly components: readonly string[] | null
  /** The signature must cover the body through Content-Digest, and the body must match that digest. */
  readonly signBody: boolean
  readonly maxAgeSeconds: number
  /** How many seconds `created` may lie in the future. */
  readonly leewaySeconds: number
  /** Null: any. */
  readonly label: string | null
  readonly tag: string | null
}

const DEFAULT_MAX_AGE_MS = 300_000
const DEFAULT_LEEWAY_MS = 30_000

/** What the configuration says of signatures, as its schema gives it. Durations in ms. */
interface HttpSignatureOptions {
  readonly components?: readonly string[] | undefined
  readonly maxAge?: number | undefined
  readonly leeway?: number | undefined
  readonly label?: string | undefined
  readonly tag?: string | undefined
}

/** @param options the route's own before those of all routes */
export function compileHttpSignature(options: HttpSignatureOptions, signBody: boolean): HttpSignatureRules {
  const { components, maxAge, leeway, label, tag } = options
  return {
    components: components ?? null,
    signBody,
    maxAgeSeconds: Math.round((maxAge ?? DEFAULT_MAX_AGE_MS) / 1000),
    leewaySeconds: Math.round((leeway ?? DEFAULT_LEEWAY_MS) / 1000),
    label: label ?? null,
    tag: tag ?? null,
  }
}

const DERIVED = ['@method', '@target-uri', '@authority', '@scheme', '@request-target', '@path', '@query']
const FIELD = /^[!#$%&'*+.^_`|~0-9a-z-]+$/

/**
 * Spells `@path`, `date` or `@query-param;name="id"` as Signature-Input does; null if no request has such a component.
 */
export function componentIdentifier(text: string): string | null {
  const [name = ''] = text.split(';', 1)
  if (!FIELD.test(name.replace(/^@/, ''))) return null
  try {
    const item = parseItem(`"${name}"${text.slice(name.length)}`)
    const [key, ...more] = [...item[1]]
    if (more.length > 0) return null
    const identifier = serializeItem(item)
    if (name === '@query-param') return key?.[0] === 'name' && typeof key[1] === 'string' ? identifier : null
    if (name.startsWith('@')) return key === undefined && DERIVED.includes(name) ? identifier : null
    if (key === undefined || (key[0] === 'key' && typeof key[1] === 'string')) return identifier
    return ['sf', 'bs'].includes(key[0]) && key[1] === true ? identifier : null
  } catch {
    return null
  }
}

const RSA_BITS = 2048

/** Returns the PEM public key if it fits the algorithm. */
export function keepSignatureKey(text: string, algorithm: SignatureAlgorithm): Kept<string> {
  if (/PRIVATE KEY-----/.test(text)) return { problem: 'is a private key; the gateway wants the public one alone' }
  try {
    const key = createPublicKey(text)
    const problem = keyProblem(key, algorithm)
    return problem === null
      ? { kept: String(key.export({ type: 'spki', format: 'pem' })) }
      : { problem: `is no key for ${algorithm}: ${problem}` }
  } catch {
    return { problem: 'is no PEM public key or certificate' }
  }
}

function keyProblem(key: KeyObject, algorithm: SignatureAlgorithm): string | null {
  const type = key.asymmetricKeyType
  const { namedCurve, modulusLength = 0, hashAlgorithm, mgf1HashAlgorithm } = key.asymmetricKeyDetails ?? {}
  if (algorithm === 'ed25519') return type === 'ed25519' ? null : 'that wants an Ed25519 key'
  if (algorithm === 'ecdsa-p256-sha256') return namedCurve === 'prime256v1' ? null : 'that wants a key on P-256'
  if (type !== 'rsa' && type !== 'rsa-pss') return 'that wants an RSA key'
  if (modulusLength < RSA_BITS) return `it has ${modulusLength} bits, ${RSA_BITS} is the least`
  // A key can be bound to one hash (RFC 4055, 1.2).
  const bound = [hashAlgorithm, mgf1HashAlgorithm].find((hash) => hash !== undefined && hash !== 'sha512')
  return bound === undefined ? null : `it is bound to ${bound}`
}

/** Returns the HMAC secret as Base64; the configuration may hold it in that form. */
export function keepSignatureSecret(text: string, encoding: 'utf8' | 'base64'): Kept<string> {
  if (encoding === 'base64' && !/^[A-Za-z0-9+/]+={0,2}$/.test(text)) return { problem: 'is not base64' }
  const found = keepSharedSecret(text, encoding)
  return 'problem' in found ? found : { kept: Buffer.from(text, encoding).toString('base64') }
}
