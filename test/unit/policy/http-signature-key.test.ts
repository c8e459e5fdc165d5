import { constants, generateKeyPairSync, sign } from 'node:crypto'
import { parseDictionary } from 'structured-headers'
import { describe, expect, it, test } from 'vitest'
import type { Consumer } from '../../../src/config/compile.js'
import type { HttpSignatureKey } from '../../../src/config/http-signature.js'
import { VerificationKey } from '../../../src/policy/http-signature-key.js'
import { EXAMPLES, KEYS, type KeyId } from '../../support/rfc9421.js'

const consumer = { name: 'test' } as Consumer

function keyOf(id: KeyId): VerificationKey {
  const key = KEYS[id]
  const material = 'secret' in key ? key.secret : key.publicKey
  return new VerificationKey(consumer, { id, algorithm: key.algorithm, material })
}

const bytesOf = (signature: string): Buffer =>
  Buffer.from([...parseDictionary(signature).values()][0]![0] as ArrayBuffer)

describe.each(EXAMPLES)('RFC 9421, $section', ({ key, base, signature }) => {
  const text = base.join('\n')
  const bytes = bytesOf(signature)

  it('verifies', () => {
    expect(keyOf(key).verify(text, bytes)).toBe(true)
  })

  it('does not with any bit of the signature or the base turned over', () => {
    for (let bit = 0; bit < bytes.length * 8; bit += 7) {
      const forged = Buffer.from(bytes)
      forged[bit >> 3]! ^= 1 << (bit & 7)
      expect(keyOf(key).verify(text, forged)).toBe(false)
    }
    for (const at of [0, text.length >> 1, text.length - 1]) {
      const other = `${text.slice(0, at)}${String.fromCharCode(text.charCodeAt(at) ^ 1)}${text.slice(at + 1)}`
      expect(keyOf(key).verify(other, bytes)).toBe(false)
    }
  })

  it('does not with another length, and does not throw', () => {
    for (const forged of [bytes.subarray(1), Buffer.concat([bytes, Buffer.alloc(1)]), Buffer.alloc(0), Buffer.alloc(9)])
      expect(keyOf(key).verify(text, forged)).toBe(false)
  })

  it('does not with any other key', () => {
    for (const other of Object.keys(KEYS) as KeyId[]) expect(keyOf(other).verify(text, bytes)).toBe(other === key)
  })
})

describe('hmac-sha256', () => {
  // Those whose data is ASCII: what is signed is text.
  test.each([
    ['1', '0b'.repeat(20), 'Hi There', 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
    [
      '2',
      Buffer.from('Jefe').toString('hex'),
      'what do ya want for nothing?',
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    ],
    [
      '6',
      'aa'.repeat(131),
      'Test Using Larger Than Block-Size Key - Hash Key First',
      '60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54',
    ],
    [
      '7',
      'aa'.repeat(131),
      'This is a test using a larger than block-size key and a larger than block-size data. The key needs to be hashed before being used by the HMAC algorithm.',
      '9b09ffa71b942fcb27635fbcd5b0e944bfdc63644f0713938a7f51535c3a35e2',
    ],
  ])('RFC 4231, case %s', (_, secret, data, mac) => {
    const material = Buffer.from(secret, 'hex').toString('base64')
    const key = new VerificationKey(consumer, { id: 'k', algorithm: 'hmac-sha256', material })
    expect(key.verify(data, Buffer.from(mac, 'hex'))).toBe(true)
    expect(key.verify(`${data} `, Buffer.from(mac, 'hex'))).toBe(false)
  })
})

describe('keys made here', () => {
  const material = (publicKey: { export(o: { type: 'spki'; format: 'pem' }): string | Buffer }): string =>
    String(publicKey.export({ type: 'spki', format: 'pem' }))
  const verifier = (algorithm: HttpSignatureKey['algorithm'], pem: string): VerificationKey =>
    new VerificationKey(consumer, { id: 'k', algorithm, material: pem })
  const data = Buffer.from('"@method": GET', 'utf8')

  it('sign with ECDSA as R and S, and not as ASN.1', () => {
    const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const key = verifier('ecdsa-p256-sha256', material(publicKey))
    expect(key.verify(String(data), sign('sha256', data, { key: privateKey, dsaEncoding: 'ieee-p1363' }))).toBe(true)
    expect(key.verify(String(data), sign('sha256', data, privateKey))).toBe(false)
    // SHA-256 alone is asked for.
    expect(key.verify(String(data), sign('sha512', data, { key: privateKey, dsaEncoding: 'ieee-p1363' }))).toBe(false)
  })

  it('sign with RSA by PSS with 64 bytes of salt, and in no other way', () => {
    const { publicKey, privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const key = verifier('rsa-pss-sha512', material(publicKey))
    const pss = { key: privateKey, padding: constants.RSA_PKCS1_PSS_PADDING }
    expect(key.verify(String(data), sign('sha512', data, { ...pss, saltLength: 64 }))).toBe(true)
    expect(key.verify(String(data), sign('sha512', data, { ...pss, saltLength: 32 }))).toBe(false)
    expect(key.verify(String(data), sign('sha256', data, { ...pss, saltLength: 64 }))).toBe(false)
    expect(key.verify(String(data), sign('sha512', data, privateKey))).toBe(false)
  })
})
