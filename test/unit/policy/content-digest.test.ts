import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it, test } from 'vitest'
import { digestFits, hasDigest } from '../../../src/policy/content-digest.js'
import { BODY } from '../../support/rfc9421.js'

const digest = (name: 'sha-256' | 'sha-512', body: Uint8Array): string =>
  `${name}=:${createHash(name.replace('-', '')).update(body).digest('base64')}:`

describe('published', () => {
  // RFC 9530, appendix D; and the request of RFC 9421, appendix B.2.
  test.each([
    ['RFC 9530, D.1', '{"hello": "world"}\n', 'sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:'],
    [
      'RFC 9421, B.2',
      BODY,
      'sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:',
    ],
    ['of nothing', '', 'sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:'],
  ])('%s', (_, body, field) => {
    expect(digestFits(field, Buffer.from(body))).toBe(true)
    expect(digestFits(field, Buffer.from(`${body} `))).toBe(false)
  })
})

it('fits the body that it was made of and no other, alone or beside one of another kind', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(), (body, at) => {
      const [short, long] = [digest('sha-256', body), digest('sha-512', body)]
      for (const field of [short, long, `${short}, ${long}`, `md5=:AAAA:, unixsum=7, ${long}`]) {
        expect(digestFits(field, body)).toBe(true)
        if (body.length === 0) continue
        const other = Uint8Array.from(body)
        other[at % body.length]! ^= 1
        expect(digestFits(field, other)).toBe(false)
      }
    }),
  )
})

const body = Buffer.from('x')

it('all digests must fit', () => {
  const wrong = digest('sha-256', Buffer.from('y'))
  expect(digestFits(`${wrong}, ${digest('sha-512', body)}`, body)).toBe(false)
  // The last of several with one name counts (RFC 9651, 3.2).
  expect(digestFits(`${wrong}, ${digest('sha-256', body)}`, body)).toBe(true)
})

it.each([
  ['nothing', ''],
  ['a deprecated algorithm alone', 'md5=:nTW5k0BV0xqBqPWMVL8mRg==:'],
  ['no dictionary', 'sha-256=:((:'],
  ['hex', `sha-256=${createHash('sha256').update(body).digest('hex')}`],
])('is no digest that counts: %s', (_, field) => {
  expect(digestFits(field, body)).toBe(false)
})

it.each([
  ['a token', 'sha-256=abc'],
  ['a number', 'sha-512=1'],
  ['a list', 'sha-256=(:YQ==:)'],
  ['too short', 'sha-256=:YQ==:'],
])('is looked at and fits nothing: %s', (_, field) => {
  expect(hasDigest(field)).toBe(true)
  expect(digestFits(field, body)).toBe(false)
})
