// The string a caller signs and its HMAC: pure, used by `authenticate` and by the offline `tidegate sign`. Runs per request, so the
// verifier computes HMAC as its two hashes over keys padded once (RFC 2104, section 4): crypto.hash costs about half of createHmac.
import { createHmac, hash } from 'node:crypto'
import type { Consumer } from '../config/compile.js'

export type Algorithm = Consumer['algorithm']
export type Signer = Pick<Consumer, 'name' | 'algorithm' | 'signs'>

/** hex(SHA-256("")): the last line of a request without a body. */
export const EMPTY_BODY_HASH = hash('sha256', '', 'hex')
/** The last line where the body is not part of what is signed (`signBody: false`). */
export const UNSIGNED_BODY = '-'

/** The last line of the string to sign. `body` null: the request has none. */
export function signedBodyHash(signBody: boolean, body: Uint8Array | null): string {
  if (!signBody) return UNSIGNED_BODY
  return body === null || body.length === 0 ? EMPTY_BODY_HASH : hash('sha256', body, 'hex')
}

/** Block and digest length of each algorithm in bytes (RFC 2104, section 2; FIPS 180-4). */
const SIZES = {
  sha256: { block: 64, digest: 32 },
  sha1: { block: 64, digest: 20 },
  md5: { block: 64, digest: 16 },
} as const satisfies Record<Algorithm, { block: number; digest: number }>

/** Longer strings to sign take createHmac: the headers, and so the target, are rarely a tenth of this. */
const SCRATCH_BYTES = 4096
/** [ padded key, one block | string to sign ]. Verification is synchronous, so one buffer serves every verifier of this thread. */
const scratch = Buffer.alloc(SCRATCH_BYTES)
/** scratch[0, n) by n, made when first needed: a Buffer view costs as much as a hash. */
const views: (Buffer | undefined)[] = new Array(SCRATCH_BYTES + 1).fill(undefined)

/**
 * @param time Unix seconds as sent in x-time
 * @param target origin-form as sent, query included: `/path?a=b`
 * @param bodyHash lower-case hex SHA-256 of the body, or UNSIGNED_BODY
 */
export function stringToSign(source: string, time: string, method: string, target: string, bodyHash: string): string {
  return `${source}\n${time}\n${method}\n${target}\n${bodyHash}`
}

/** What `signs: legacy` covers: it says nothing of the request, so whoever sees it may use it for another until it is stale. */
export function legacyStringToSign(source: string, time: string): string {
  return `${source}\n${time}`
}

/** The value of x-m. Any length, any secret; for the offline command, tests and large strings. */
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

/** One key of one algorithm, its inner and outer pads computed. */
export class HmacKey {
  private readonly algorithm: Algorithm
  private readonly secret: string
  private readonly block: number
  private readonly innerPad: Buffer
  /** [ outer pad | inner digest ]: the second hash's whole input. */
  private readonly outer: Buffer

  constructor(algorithm: Algorithm, secret: string) {
    const { block, digest } = SIZES[algorithm]
    const key = Buffer.from(secret, 'utf8')
    const padded = Buffer.alloc(block)
    padded.set(key.length > block ? hash(algorithm, key, 'buffer') : key)
    this.algorithm = algorithm
    this.secret = secret
    this.block = block
    this.innerPad = Buffer.alloc(block)
    this.outer = Buffer.alloc(block + digest)
    for (let i = 0; i < block; i++) {
      this.innerPad[i] = (padded[i] as number) ^ 0x36
      this.outer[i] = (padded[i] as number) ^ 0x5c
    }
  }

  /** Lower-case hex HMAC of the message's UTF-8 bytes. */
  hex(message: string): string {
    // Three bytes is the most UTF-8 takes for one UTF-16 unit.
    if (message.length * 3 > SCRATCH_BYTES - this.block) {
      return createHmac(this.algorithm, this.secret).update(message).digest('hex')
    }
    scratch.set(this.innerPad)
    const length = this.block + scratch.write(message, this.block)
    const view = views[length] ?? viewOf(length)
    this.outer.write(hash(this.algorithm, view, 'binary'), this.block, 'latin1')
    return hash(this.algorithm, this.outer, 'hex')
  }
}

function viewOf(length: number): Buffer {
  const view = scratch.subarray(0, length)
  views[length] = view
  return view
}

/** Checks what one consumer signed, with every secret it has at the moment. */
export class Verifier {
  private readonly name: string
  private readonly legacy: boolean
  private readonly digestChars: number
  private readonly keys: readonly HmacKey[]

  constructor(consumer: Consumer) {
    this.name = consumer.name
    this.legacy = consumer.signs === 'legacy'
    this.digestChars = SIZES[consumer.algorithm].digest * 2
    this.keys = consumer.secrets.map((secret) => new HmacKey(consumer.algorithm, secret))
  }

  /** `mac` must be lower-case hex of the algorithm's exact length. All secrets are tried: the time does not tell which one fits. */
  verify(time: string, method: string, target: string, bodyHash: string, mac: string): boolean {
    if (mac.length !== this.digestChars) return false
    const message = this.legacy
      ? legacyStringToSign(this.name, time)
      : stringToSign(this.name, time, method, target, bodyHash)
    let matched = false
    for (let i = 0; i < this.keys.length; i++) {
      matched = equalDigits((this.keys[i] as HmacKey).hex(message), mac) || matched
    }
    return matched
  }
}

/**
 * Constant time for equal lengths: every digit is compared and only the sum of the differences is looked at. timingSafeEqual would
 * want two Buffers made of the strings first, which costs more than the comparison and is no more constant.
 */
function equalDigits(a: string, b: string): boolean {
  let difference = a.length ^ b.length
  for (let i = 0; i < a.length; i++) difference |= a.charCodeAt(i) ^ b.charCodeAt(i)
  return difference === 0
}
