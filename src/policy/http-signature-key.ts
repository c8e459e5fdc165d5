// One RFC 9421 key: verifies signatures made with it. Made at start, from keys that config/ has checked. Runs per
// request with such a signature.
import {
  constants,
  createHmac,
  createPublicKey,
  createSecretKey,
  type KeyObject,
  timingSafeEqual,
  verify,
} from 'node:crypto'
import type { Consumer } from '../config/compile.js'
import type { HttpSignatureKey } from '../config/http-signature.js'

const HMAC_BYTES = 32
/** RFC 9421, 3.3.1. */
const PSS_SALT_BYTES = 64

export class VerificationKey {
  readonly consumer: Consumer
  /** The key's algorithm. A signature's `alg` parameter must agree with it. */
  readonly algorithm: HttpSignatureKey['algorithm']
  private readonly key: KeyObject

  constructor(consumer: Consumer, { algorithm, material }: HttpSignatureKey) {
    this.consumer = consumer
    this.algorithm = algorithm
    this.key =
      algorithm === 'hmac-sha256' ? createSecretKey(Buffer.from(material, 'base64')) : createPublicKey(material)
  }

  /** @param base the signature base, one character per byte */
  verify(base: string, signature: Buffer): boolean {
    const { key } = this
    const data = Buffer.from(base, 'latin1')
    switch (this.algorithm) {
      case 'hmac-sha256':
        return (
          signature.length === HMAC_BYTES && timingSafeEqual(createHmac('sha256', key).update(data).digest(), signature)
        )
      case 'ed25519':
        return verify(null, data, key, signature)
      case 'ecdsa-p256-sha256':
        return verify('sha256', data, { key, dsaEncoding: 'ieee-p1363' }, signature)
      case 'rsa-pss-sha512': {
        const padding = constants.RSA_PKCS1_PSS_PADDING
        return verify('sha512', data, { key, padding, saltLength: PSS_SALT_BYTES }, signature)
      }
    }
  }
}
