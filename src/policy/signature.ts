// The string that a client signs with x-m, and its HMAC. Pure; used by x-m.ts and by the offline `tidegate sign`. Runs
// per request, so HMAC-SHA256 is one call into the addon, with the key's part computed before (RFC 2104, section 4):
// 0.3 µs, where createHmac takes 2.
import { createHmac, hash } from 'node:crypto'
import { type HmacKey as NativeHmacKey, native } from '../../native/index.js'
import type { Consumer } from '../config/compile.js'

export type Algorithm = Consumer['algorithm']
export type Signer = Pick<Consumer, 'name' | 'algorithm' | 'signs'>

/** hex(SHA-256("")): the last line of a request without a body. */
export const EMPTY_BODY_HASH = hash('sha256', '', 'hex')
/** The last line if the body is not signed (`signBody: false`). */
export const UNSIGNED_BODY = '-'

/** The last line of the string to sign. `body` null: the request has none. */
export function signedBodyHash(signBody: boolean, body: Uint8Array | null): string {
  if (!signBody) return UNSIGNED_BODY
  return body === null || body.length === 0 ? EMPTY_BODY_HASH : hash('sha256', body, 'hex')
}

/** Digest length in bytes (FIPS 180-4, RFC 1321). */
const DIGEST_BYTES = { sha256: 32, sha1: 20, md5: 16 } as const satisfies Record<Algorithm, number>

/**
 * @param time Unix seconds as sent in x-time
 * @param target origin-form as sent, query included: `/path?a=b`
 * @param bodyHash lower-case hex SHA-256 of the body, or UNSIGNED_BODY
 */
export function stringToSign(source: string, time: string, method: string, target: string, bodyHash: string): string {
  return `${source}\n${time}\n${method}\n${target}\n${bodyHash}`
}

/**
 * The string for `signs: legacy`. It does not cover the request, so anyone who sees the signature can use it for
 * another request until it expires.
 */
export function legacyStringToSign(source: string, time: string): string {
  return `${source}\n${time}`
}

/** Computes x-m for any length and any secret; for the offline command, tests and long strings. */
export function sign(
  signer: Signer,
  secret: string,
  time: string,
  method: string,
  target: string,
  bodyHash: string,
): string {
  const message =
    signer.signs === 'legacy'
      ? legacyStringToSign(signer.name, time)
      : stringToSign(signer.name, time, method, target, bodyHash)
  return createHmac(signer.algorithm, secret).update(message).digest('hex')
}

/** One secret of one algorithm. */
export class HmacKey {
  private readonly algorithm: Algorithm
  private readonly secret: string
  private readonly nativeKey: NativeHmacKey | null

  constructor(algorithm: Algorithm, secret: string) {
    this.algorithm = algorithm
    this.secret = secret
    this.nativeKey = algorithm === 'sha256' ? nativeKeyOf(secret) : null
  }

  /** Whether `mac`, lower-case hex of the algorithm's length, is the HMAC of the message's UTF-8 bytes. */
  matches(message: string, mac: string): boolean {
    // UTF-8 takes at most three bytes per UTF-16 unit.
    if (this.nativeKey !== null && message.length <= MOST_NATIVE_BYTES / 3) {
      return native!.hmacMatches!(this.nativeKey, message, mac)
    }
    return equalDigits(createHmac(this.algorithm, this.secret).update(message).digest('hex'), mac)
  }
}

/** Longer strings to sign are rare: heads, and so targets, seldom have a tenth of this. */
const MOST_NATIVE_BYTES = 4000
/** Bytes of SHA-256's block. */
const BLOCK_BYTES = 64

function nativeKeyOf(secret: string): NativeHmacKey | null {
  if (native?.hmacKey === undefined) return null
  const key = Buffer.from(secret, 'utf8')
  const padded = Buffer.alloc(BLOCK_BYTES)
  padded.set(key.length > BLOCK_BYTES ? hash('sha256', key, 'buffer') : key)
  return native.hmacKey(padded)
}

/** Checks the signatures of one consumer, with each of its current secrets. */
export class Verifier {
  private readonly name: string
  private readonly legacy: boolean
  private readonly digestChars: number
  private readonly keys: readonly HmacKey[]

  constructor(consumer: Consumer) {
    this.name = consumer.name
    this.legacy = consumer.signs === 'legacy'
    this.digestChars = DIGEST_BYTES[consumer.algorithm] * 2
    this.keys = consumer.secrets.map((secret) => new HmacKey(consumer.algorithm, secret))
  }

  /**
   * `mac` must be lower-case hex of the algorithm's exact length. All secrets are tried: the time does not tell which
   * one fits.
   */
  verify(time: string, method: string, target: string, bodyHash: string, mac: string): boolean {
    if (mac.length !== this.digestChars) return false
    const message = this.legacy
      ? legacyStringToSign(this.name, time)
      : stringToSign(this.name, time, method, target, bodyHash)
    let matched = false
    for (let i = 0; i < this.keys.length; i++) {
      matched = (this.keys[i] as HmacKey).matches(message, mac) || matched
    }
    return matched
  }
}

/**
 * Constant time for equal lengths: it compares every digit and looks only at the sum of the differences.
 * timingSafeEqual would need two Buffers made of the strings first, which costs more than the comparison and is not
 * more constant.
 */
function equalDigits(a: string, b: string): boolean {
  let difference = a.length ^ b.length
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i)
  return difference === 0
}
