// Credentials in the form in which the gateway keeps them: a hash of what a consumer presents; an issuer's public keys
// (or, for HMAC, its secret). Runs at start only: scrypt deliberately blocks for a fifth of a second.
import { createPublicKey, hash, type JsonWebKey, randomBytes, scryptSync, timingSafeEqual } from 'node:crypto'

/** For credentials with enough random bits that they cannot be guessed: one fast hash is enough. */
export const SHA256_FORM = /^sha256:[0-9a-f]{64}$/

export function sha256Form(text: string): string {
  return `sha256:${hash('sha256', text, 'hex')}`
}

/** For passwords that a person chose: the PHC string format, as passlib and others write it. */
export interface ScryptForm {
  readonly N: number
  readonly r: number
  readonly p: number
  readonly salt: Buffer
  readonly hash: Buffer
}

const SCRYPT_FORM =
  /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,86})={0,2}\$([A-Za-z0-9+/]{22,86})={0,2}$/
/** Most bytes that one check may use, because every wrong password costs as much. */
const MAX_SCRYPT_BYTES = 256 * 2 ** 20

/** Returns null if the text is not in this format, or asks for more memory than a check may use. */
export function parseScrypt(text: string): ScryptForm | null {
  const match = SCRYPT_FORM.exec(text)
  if (match === null) return null
  const [ln, r, p] = match.slice(1, 4).map(Number) as [number, number, number]
  if (ln < 1 || r < 1 || p < 1 || p > 16 || scryptBytes(2 ** ln, r) > MAX_SCRYPT_BYTES) return null
  const [salt, hash] = match.slice(4).map((part) => Buffer.from(part, 'base64')) as [Buffer, Buffer]
  return { N: 2 ** ln, r, p, salt, hash }
}

/** RFC 7914, 2: bytes of memory that one computation uses. */
export function scryptBytes(N: number, r: number): number {
  return 128 * N * r
}

/** OWASP's smallest recommended parameters: 16 MiB per check. */
export function scryptForm(password: string): string {
  const salt = randomBytes(16)
  const key = scryptSync(password, salt, 32, { N: 2 ** 14, r: 8, p: 5 })
  const plain = (bytes: Buffer): string => bytes.toString('base64').replace(/=+$/, '')
  return `$scrypt$ln=14,r=8,p=5$${plain(salt)}$${plain(key)}`
}

/**
 * Fewest bytes of an API key or shared secret. 128 random bits take 22 characters of an alphabet of 64;
 * the rest leaves room for hex or a prefix.
 */
const MIN_SECRET_BYTES = 16

export type Kept<T> = { readonly kept: T } | { readonly problem: string }

/** The hash that API keys are compared with: the given hash, or the hash of the given key. */
export function keepApiKey(text: string): Kept<string> {
  if (SHA256_FORM.test(text)) return { kept: text }
  return Buffer.byteLength(text) < MIN_SECRET_BYTES
    ? { problem: `is too short for an API key: ${MIN_SECRET_BYTES} random characters at least` }
    : { kept: sha256Form(text) }
}

/** An HMAC secret. It must be long, because anyone who sees one signed request can try secrets against it offline. */
export function keepSharedSecret(secret: string, encoding: 'utf8' | 'base64' = 'utf8'): Kept<string> {
  return Buffer.from(secret, encoding).length < MIN_SECRET_BYTES
    ? { problem: `is too short for a secret: ${MIN_SECRET_BYTES} random bytes at least, as openssl rand -hex 16 makes` }
    : { kept: secret }
}

/**
 * The hashes of each consumer's clear-text passwords, from the last two reads: a refused configuration may lie in
 * between.
 */
const madeForms = new Map<string, readonly string[]>()

/** An unchanged password keeps its hash, so that reading the configuration again does not count as a change. */
function keptForm(consumer: string, password: string): string {
  const former = madeForms.get(consumer) ?? []
  const same = former.find((form) => fitsScrypt(password, parseScrypt(form) as ScryptForm))
  if (same !== undefined) return same
  const form = scryptForm(password)
  madeForms.set(consumer, [form, ...former].slice(0, 2))
  return form
}

function fitsScrypt(password: string, { N, r, p, salt, hash }: ScryptForm): boolean {
  return timingSafeEqual(scryptSync(password, salt, hash.length, { N, r, p, maxmem: 2 * scryptBytes(N, r) }), hash)
}

export function keepPassword(consumer: string, text: string): Kept<string> {
  if (SHA256_FORM.test(text)) return { kept: text }
  if (!text.startsWith('$scrypt$')) return { kept: keptForm(consumer, text) }
  return parseScrypt(text) === null
    ? { problem: 'is no $scrypt$ln=…,r=…,p=…$SALT$HASH, or one that takes more than 256 MiB' }
    : { kept: text }
}

const RSA_BITS = 2048

/** Reads public keys from a PEM block, a JWK or a JWK set. */
export function keepPublicKeys(text: string): Kept<JsonWebKey[]> {
  if (/PRIVATE KEY-----/.test(text)) return { problem: 'is a private key; the gateway wants the public one alone' }
  try {
    const jwks = text.trimStart().startsWith('{') ? jwksOf(JSON.parse(text)) : [{ key: text }]
    const kept = jwks.map((jwk) => publicJwk(jwk))
    return kept.length === 0 ? { problem: 'holds no key' } : { kept }
  } catch (error) {
    return {
      problem: error instanceof KeyProblem ? error.message : 'is no PEM public key, certificate, JWK or JWK set',
    }
  }
}

class KeyProblem extends Error {}

type Source = { readonly key: string } | { readonly jwk: JsonWebKey }

function jwksOf(json: { keys?: JsonWebKey[] } & JsonWebKey): Source[] {
  return (Array.isArray(json.keys) ? json.keys : [json]).map((jwk) => ({ jwk }))
}

function publicJwk(source: Source): JsonWebKey {
  if ('jwk' in source && ('d' in source.jwk || source.jwk.kty === 'oct')) {
    throw new KeyProblem('holds a private or secret key; the gateway wants public ones alone')
  }
  const object = 'jwk' in source ? createPublicKey({ key: source.jwk, format: 'jwk' }) : createPublicKey(source.key)
  const { modulusLength } = object.asymmetricKeyDetails ?? {}
  if (modulusLength !== undefined && modulusLength < RSA_BITS) {
    throw new KeyProblem(`holds an RSA key of ${modulusLength} bits; ${RSA_BITS} is the least (RFC 7518, 3.3)`)
  }
  const { kid, alg, use } = ('jwk' in source ? source.jwk : {}) as JsonWebKey
  const given = Object.entries({ kid, alg, use }).filter(([, value]) => typeof value === 'string')
  return { ...object.export({ format: 'jwk' }), ...Object.fromEntries(given) }
}
