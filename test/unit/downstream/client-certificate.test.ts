import { generate } from 'selfsigned'
import { expect, test } from 'vitest'
import { subjectNames } from '../../../src/downstream/client-certificate.js'
import { createAuthority, type Subject } from '../../support/certificates.js'

/** Its common name is `a, CN=shop`, which the generator of the others would take for two. */
const COMMA = `-----BEGIN CERTIFICATE-----
MIIBfzCCASWgAwIBAgIUXGyylwskruynOOpn/bvaMLpHevIwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKYSwgQ049c2hvcDAeFw0yNjExMjAxMjU4MTZaFw0yNjExMzAx
MjU4MTZaMBUxEzARBgNVBAMMCmEsIENOPXNob3AwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAAR53TxhhcDyyimCX1qdp0ohoXk4GU9DcfnTTvL/8vv1jrUEjQ5GGrsG
MbWTd7bJy8HyKqqQdBsELSgyK3N5Y2FEo1MwUTAdBgNVHQ4EFgQUstXiB0g7Tp6i
6ObFjbK7+60m6/UwHwYDVR0jBBgwFoAUstXiB0g7Tp6i6ObFjbK7+60m6/UwDwYD
VR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNIADBFAiEA0DivOATXHvgVFuJ71BJh
P4HGJeL2+K9e4TGcHjng7PQCIFqYGlYGPFhELpPFJ/XCjqtlJBPC64RXy8HedlL1
lJxN
-----END CERTIFICATE-----
`

const authority = createAuthority()
const issued = async (subject: Subject) => (await (await authority).issue(subject)).cert

test('each kind of name is told apart', async () => {
  const pem = await issued({
    cn: 'shop',
    dns: ['shop.test', 'www.shop.test'],
    uris: ['spiffe://i.com/shop'],
    emails: ['shop@i.com'],
    ips: ['127.0.0.1'],
  })
  expect(subjectNames(pem, 'cn')).toEqual(['shop'])
  expect(subjectNames(pem, 'dns')).toEqual(['shop.test', 'www.shop.test'])
  expect(subjectNames(pem, 'uri')).toEqual(['spiffe://i.com/shop'])
  expect(subjectNames(pem, 'email')).toEqual(['shop@i.com'])
})

test('what is not there names nobody', async () => {
  const pem = await issued({ uris: ['spiffe://i.com/shop'] })
  for (const kind of ['cn', 'dns', 'email'] as const) expect(subjectNames(pem, kind)).toEqual([])
})

test.each([
  'spiffe://i.com/a, URI:spiffe://i.com/shop',
  'spiffe://i.com/a", URI:"spiffe://i.com/shop',
  'spiffe://i.com/a\\", URI:"spiffe://i.com/shop',
  'spiffe://i.com/a, DNS:shop.test',
  'a:b, c: "d", URI:"spiffe://i.com/shop"',
])('a name that looks like several is one: %s', async (uri) => {
  const pem = await issued({ uris: [uri, 'spiffe://i.com/last'] })
  expect(subjectNames(pem, 'uri')).toEqual([uri, 'spiffe://i.com/last'])
  expect(subjectNames(pem, 'dns')).toEqual([])
})

test('a common name that looks like several is one, and several are none', async () => {
  expect(subjectNames(COMMA, 'cn')).toEqual(['a, CN=shop'])
  const attributes = ['a', 'shop'].map((value) => ({ name: 'commonName', value }))
  const { cert } = await generate(attributes, { keyType: 'ec', algorithm: 'sha256' })
  expect(subjectNames(cert, 'cn')).toEqual([])
})
