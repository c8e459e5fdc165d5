import { createHash, createHmac } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Consumer } from '../../../src/config/compile.js'
import {
  type Algorithm,
  EMPTY_BODY_HASH,
  HmacKey,
  legacyStringToSign,
  sign,
  signedBodyHash,
  stringToSign,
  UNSIGNED_BODY,
  Verifier,
} from '../../../src/policy/signature.js'

const text = (hex: string) => Buffer.from(hex, 'hex').toString('latin1')
const ALGORITHMS: Algorithm[] = ['sha256', 'sha1', 'md5']

const consumer = (over: Partial<Consumer> = {}): Consumer => ({
  name: 'test',
  index: 0,
  secrets: ['s3cret'],
  algorithm: 'sha256',
  signs: 'request',
  httpSignatureKeys: [],
  ...over,
})

// Keys and data whose bytes are ASCII: strings here are UTF-8, so the vectors made of 0xaa bytes cannot be written as
// one.
describe('published vectors', () => {
  const hi = text('0b'.repeat(20))
  test.each([
    ['RFC 4231, case 1', 'sha256', hi, 'Hi There', 'b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7'],
    [
      'RFC 4231, case 2',
      'sha256',
      'Jefe',
      'what do ya want for nothing?',
      '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
    ],
    [
      'RFC 4231, case 5, before it is cut',
      'sha256',
      text('0c'.repeat(20)),
      'Test With Truncation',
      'a3b6167473100ee06e0c796c2955552bfa6f7c0a6a8aef8b93f860aab0cd20c5',
    ],
    ['RFC 2202, MD5 case 1', 'md5', text('0b'.repeat(16)), 'Hi There', '9294727a3638bb1c13f48ef8158bfc9d'],
    ['RFC 2202, MD5 case 2', 'md5', 'Jefe', 'what do ya want for nothing?', '750c783e6ab0b503eaa86e310a5db738'],
    ['RFC 2202, MD5 case 5', 'md5', text('0c'.repeat(16)), 'Test With Truncation', '56461ef2342edc00f9bab995690efd4c'],
    ['RFC 2202, SHA-1 case 1', 'sha1', hi, 'Hi There', 'b617318655057264e28bc0b6fb378c8ef146be00'],
    [
      'RFC 2202, SHA-1 case 2',
      'sha1',
      'Jefe',
      'what do ya want for nothing?',
      'effcdf6ae5eb2fa2d27416d5f184df9c259a7c79',
    ],
    [
      'RFC 2202, SHA-1 case 5',
      'sha1',
      text('0c'.repeat(20)),
      'Test With Truncation',
      '4c1a03424b55e07fe7f27be1d58bb9324a9a5a04',
    ],
  ] as const)('%s', (_name, algorithm, key, data, mac) => {
    expect(new HmacKey(algorithm, key).matches(data, mac)).toBe(true)
    expect(new HmacKey(algorithm, key).matches(`${data} `, mac)).toBe(false)
  })
})

test('matches createHmac, and no other digit, for any key and message, also long ones and outside ASCII', () => {
  const string = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 300 }),
    fc.string({ unit: 'grapheme', maxLength: 3000 }),
    fc.nat({ max: 6000 }).map((n) => 'é'.repeat(n)),
    fc.constantFrom('a'.repeat(64), 'a'.repeat(65), 'a'.repeat(63), ''),
  )
  fc.assert(
    fc.property(
      fc.constantFrom(...ALGORITHMS),
      string,
      fc.array(string, { minLength: 1, maxLength: 4 }),
      (algorithm, key, messages) => {
        const hmac = new HmacKey(algorithm, key)
        for (const message of messages) {
          const mac = createHmac(algorithm, key).update(message).digest('hex')
          expect(hmac.matches(message, mac)).toBe(true)
          const at = message.length % mac.length
          const other = mac[at] === '0' ? '1' : '0'
          expect(hmac.matches(message, mac.slice(0, at) + other + mac.slice(at + 1))).toBe(false)
        }
      },
    ),
    { numRuns: 300 },
  )
})

test('the string to sign is the five lines of the contract, or two in the legacy form', () => {
  expect(stringToSign('test', '1700000000', 'POST', '/a?b=c', 'ff')).toBe('test\n1700000000\nPOST\n/a?b=c\nff')
  expect(legacyStringToSign('test', '1700000000')).toBe('test\n1700000000')
  expect(EMPTY_BODY_HASH).toBe(createHash('sha256').update('').digest('hex'))
})

test('the last line says what the body was, or that it is not signed', () => {
  expect(signedBodyHash(true, null)).toBe(EMPTY_BODY_HASH)
  expect(signedBodyHash(true, new Uint8Array())).toBe(EMPTY_BODY_HASH)
  expect(signedBodyHash(true, Buffer.from([0xff, 0]))).toBe(
    createHash('sha256')
      .update(Buffer.from([0xff, 0]))
      .digest('hex'),
  )
  expect(signedBodyHash(false, Buffer.from('x'))).toBe('-')
})

describe('a verifier', () => {
  const time = '1700000000'
  const mac = sign(consumer(), 's3cret', time, 'GET', '/a?b', EMPTY_BODY_HASH)
  const verifier = new Verifier(consumer())

  test('accepts what was signed and nothing that differs in any one part', () => {
    expect(verifier.verify(time, 'GET', '/a?b', EMPTY_BODY_HASH, mac)).toBe(true)
    expect(verifier.verify('1700000001', 'GET', '/a?b', EMPTY_BODY_HASH, mac)).toBe(false)
    expect(verifier.verify(time, 'PUT', '/a?b', EMPTY_BODY_HASH, mac)).toBe(false)
    expect(verifier.verify(time, 'GET', '/a?c', EMPTY_BODY_HASH, mac)).toBe(false)
    expect(verifier.verify(time, 'GET', '/a?b', UNSIGNED_BODY, mac)).toBe(false)
    expect(new Verifier(consumer({ name: 'tesT' })).verify(time, 'GET', '/a?b', EMPTY_BODY_HASH, mac)).toBe(false)
  })

  test('refuses a mac with any one digit changed, a part of it, more than it, and upper case', () => {
    for (let i = 0; i < mac.length; i++) {
      const digit = mac[i] === '0' ? '1' : '0'
      const changed = mac.slice(0, i) + digit + mac.slice(i + 1)
      expect(verifier.verify(time, 'GET', '/a?b', EMPTY_BODY_HASH, changed)).toBe(false)
    }
    for (const wrong of [
      '',
      mac.slice(0, 63),
      `${mac}0`,
      mac.slice(0, 32),
      mac.toUpperCase(),
      `${mac.slice(0, 63)}\u0000`,
    ]) {
      expect(verifier.verify(time, 'GET', '/a?b', EMPTY_BODY_HASH, wrong)).toBe(false)
    }
  })

  test.each(ALGORITHMS)('accepts every current secret of a consumer that signs with %s', (algorithm) => {
    const rotating = consumer({ secrets: ['old', 'new'], algorithm })
    const both = new Verifier(rotating)
    for (const [secret, expected] of [
      ['old', true],
      ['new', true],
      ['other', false],
    ] as const) {
      expect(
        both.verify(time, 'GET', '/', EMPTY_BODY_HASH, sign(rotating, secret, time, 'GET', '/', EMPTY_BODY_HASH)),
      ).toBe(expected)
    }
  })

  test('of the legacy form looks at source and time alone', () => {
    const legacy = consumer({ signs: 'legacy', algorithm: 'md5' })
    const short = sign(legacy, 's3cret', time, 'GET', '/', EMPTY_BODY_HASH)
    expect(short).toHaveLength(32)
    expect(short).toBe(createHmac('md5', 's3cret').update('test\n1700000000').digest('hex'))
    expect(new Verifier(legacy).verify(time, 'DELETE', '/other', UNSIGNED_BODY, short)).toBe(true)
    expect(new Verifier(legacy).verify('1700000001', 'GET', '/', EMPTY_BODY_HASH, short)).toBe(false)
    expect(verifier.verify(time, 'GET', '/', EMPTY_BODY_HASH, short)).toBe(false)
  })
})
