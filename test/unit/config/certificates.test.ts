import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, test } from 'vitest'
import { ConfigError, loadConfig } from '../../../src/config/load.js'
import { createAuthority, writePair } from '../../support/certificates.js'
import { temporaryFolder } from '../../support/gateway.js'

/** The generator of the others makes none of this kind. Good until 2126. */
const ED25519 = {
  cert: `-----BEGIN CERTIFICATE-----
MIIBOjCB7aADAgECAhR4QSp0+XPvZpdNiAMYHCMZhsnNkjAFBgMrZXAwEjEQMA4G
A1UEAwwHZWQyNTUxOTAgFw0yNjExMjAxMjIwMzVaGA8yMTI2MTAyNzEyMjAzNVow
EjEQMA4GA1UEAwwHZWQyNTUxOTAqMAUGAytlcAMhAAVG8E+cG/GruF3TBBuyygA1
iqi3aCcqB8nDHEXW1Drto1MwUTAdBgNVHQ4EFgQU2ElzY9pS/Mk6nys4aNrcKZL1
yjEwHwYDVR0jBBgwFoAU2ElzY9pS/Mk6nys4aNrcKZL1yjEwDwYDVR0TAQH/BAUw
AwEB/zAFBgMrZXADQQCIP7dPjfn4ouC5f9/opZeMyPmtXgPnl1+uwnhApudVVV/z
LfhUIikbzbvhN5dQHhtnPbBLH8HbVJSp51BioOQA
-----END CERTIFICATE-----
`,
  key: `-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIH9zS42CzpKvhina25hI93C20eA2Cf2MMS+GOd+JjcDf
-----END PRIVATE KEY-----
`,
}

let folder: string
const file = (name: string) => join(folder, name)

beforeAll(async () => {
  folder = temporaryFolder()
  const authority = await createAuthority()
  writePair(authority, folder, 'ca')
  writePair(await authority.issue({ cn: 'one', dns: ['One.test', '*.one.test'], ips: ['127.0.0.1'] }), folder, 'one')
  writePair(await authority.issue({ cn: 'two' }), folder, 'two')
  writePair(await authority.issue({ cn: 'three', passphrase: 'opens-three' }), folder, 'three')
  writeFileSync(file('broken.pem'), '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n')
  writeFileSync(file('text.pem'), 'the-text-of-a-secret\n')
  writePair(ED25519, folder, 'ed25519')
})

const SERVICES = 'services: { s: { endpoints: [https://h:1] } }\n'
const ROUTES = 'routes: [{ match: {}, service: s, auth: none }]\n'

function load(yaml: string, env = {}) {
  const path = file('gw.yaml')
  writeFileSync(path, yaml)
  return loadConfig({ file: path, env })
}

/** Without the place of the folder. */
function problemsIn(yaml: string, env = {}): string[] {
  try {
    load(yaml, env)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems.map((text) => text.replaceAll(`${folder}/`, ''))
    throw error
  }
  return []
}

const listener = (tls: string) => `${SERVICES}${ROUTES}tls: { ${tls} }\n`
const upstream = (tls: string) => `services: { s: { endpoints: [https://h:1], tls: { ${tls} } } }\n${ROUTES}`

describe('a certificate that cannot be used is refused with the key and the remedy:', () => {
  const cases: [name: string, yaml: string, ...problems: string[]][] = [
    [
      'no such files',
      listener('certificates: [{ cert: nope.pem, key: nope.key }]'),
      'gw.yaml:3:25: tls.certificates[0].cert: the file nope.pem does not exist',
      'gw.yaml:3:41: tls.certificates[0].key: the file nope.key does not exist',
    ],
    [
      'a file that is no certificate, and one that is no key',
      listener('certificates: [{ cert: text.pem, key: text.pem }]'),
      'gw.yaml:3:25: tls.certificates[0].cert: text.pem holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)',
      'gw.yaml:3:41: tls.certificates[0].key: text.pem holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)',
    ],
    [
      'a certificate that cannot be parsed',
      listener('certificates: [{ cert: broken.pem, key: one.key }]'),
      'gw.yaml:3:25: tls.certificates[0].cert: certificate 1 in broken.pem cannot be parsed',
    ],
    [
      'the key of another certificate',
      listener('certificates: [{ cert: one.pem, key: one.key }, { cert: one.pem, key: two.key }]'),
      'gw.yaml:3:73: tls.certificates[1].key: two.key does not belong to the first certificate in one.pem (the chain comes after it)',
    ],
    [
      'an encrypted key without its passphrase',
      listener('certificates: [{ cert: three.pem, key: three.key }]'),
      'gw.yaml:3:42: tls.certificates[0].key: three.key is encrypted: give its passphrase (env:NAME or file:PATH)',
    ],
    [
      'a wrong passphrase',
      listener('certificates: [{ cert: three.pem, key: three.key, passphrase: opens-nothing }]'),
      'gw.yaml:3:58: tls.certificates[0].passphrase: does not open the key in three.key',
    ],
    [
      'a passphrase that is not there',
      listener('certificates: [{ cert: three.pem, key: three.key, passphrase: env:NOT_SET }]'),
      'gw.yaml:3:58: tls.certificates[0].passphrase: the environment variable NOT_SET is not set',
    ],
    [
      'client authorities that are not there',
      listener('certificates: [{ cert: one.pem, key: one.key }], clientCa: nope.pem, clientAuth: require'),
      'gw.yaml:3:57: tls.clientCa: the file nope.pem does not exist',
    ],
    [
      'clientAuth without clientCa',
      listener('certificates: [{ cert: one.pem, key: one.key }], clientAuth: request'),
      'gw.yaml:3:57: tls.clientAuth: needs clientCa, to know whom to believe',
    ],
    [
      'clientCa without clientAuth',
      listener('certificates: [{ cert: one.pem, key: one.key }], clientCa: ca.pem'),
      'gw.yaml:3:57: tls.clientCa: has no effect without clientAuth: request or require',
    ],
    [
      'a version that is not spoken',
      listener('certificates: [{ cert: one.pem, key: one.key }], minVersion: 1.1'),
      'gw.yaml:3:57: tls.minVersion: must be 1.2 or 1.3',
    ],
    [
      'a key of a kind that no handshake would succeed with',
      listener('certificates: [{ cert: ed25519.pem, key: ed25519.key }]'),
      'gw.yaml:3:44: tls.certificates[0].key: ed25519.key is of a kind that cannot be served: use RSA, or ECDSA on P-256, P-384 or P-521',
    ],
    [
      'callers known by a certificate that nobody asks for',
      `consumers: { c: { certificate: c } }\n${SERVICES}routes: [{ match: {}, service: s, auth: client-certificate }]\n`,
      'gw.yaml:3:35: routes[0].auth: client-certificate needs tls.clientAuth: request or require',
    ],
    [
      'callers known by a certificate that nobody has',
      `consumers: { c: { secret: long-enough-secret } }\n${SERVICES}routes: [{ match: {}, service: s, auth: client-certificate }]\ntls: { certificates: [{ cert: one.pem, key: one.key }], clientCa: ca.pem, clientAuth: request }\n`,
      'gw.yaml:3:35: routes[0].auth: client-certificate needs someone who may call: no consumer has a certificate',
    ],
    [
      'two who are known by the same',
      `consumers: { c: { certificate: [c, d] }, d: { certificate: d } }\n${SERVICES}${ROUTES}`,
      'gw.yaml:1:47: consumers.d.certificate[0]: is already what "c" is known by',
    ],
    [
      'a second certificate that no name leads to',
      listener('certificates: [{ cert: one.pem, key: one.key }, { cert: two.pem, key: two.key }]'),
      'gw.yaml:3:58: tls.certificates[1].cert: two.pem is for no DNS name, and nobody would get it: give it names',
    ],
    ['no certificates', listener('certificates: []'), 'gw.yaml:3:8: tls.certificates: must have at least 1 entry'],
    [
      'a service whose authorities are not there',
      upstream('ca: nope.pem'),
      'gw.yaml:1:51: services.s.tls.ca: the file nope.pem does not exist',
    ],
    [
      "a service's certificate without its key",
      upstream('cert: one.pem'),
      'gw.yaml:1:51: services.s.tls.cert: needs key, the private key that belongs to it',
    ],
    [
      "a service's key that belongs to another certificate",
      upstream('cert: one.pem, key: two.key'),
      'gw.yaml:1:66: services.s.tls.key: two.key does not belong to the first certificate in one.pem (the chain comes after it)',
    ],
    [
      'tls for a service in cleartext',
      `services: { s: { endpoints: [http://h:1], tls: {} } }\n${ROUTES}`,
      'gw.yaml:1:43: services.s.tls: has no effect: no endpoint is https',
    ],
    [
      'authorities for a service that is not verified',
      upstream('ca: ca.pem, verify: false'),
      'gw.yaml:1:51: services.s.tls.ca: has no effect with verify: false',
    ],
  ]
  test.each(cases)('%s', (_, yaml, ...problems) => {
    expect(problemsIn(yaml)).toEqual(problems)
  })
})

test('what is sound has absolute paths for the listener and texts for services', () => {
  const { config } = load(
    `${upstream('ca: ca.pem, cert: three.pem, key: three.key, passphrase: env:THREE')}tls: { certificates: [{ cert: one.pem, key: one.key }], minVersion: 1.3 }\n`,
    { THREE: 'opens-three' },
  )
  expect(config.tls).toEqual({
    certificates: [{ cert: file('one.pem'), key: file('one.key'), passphrase: undefined }],
    minVersion: '1.3',
    clientAuth: 'none',
    clientName: 'cn',
    clientCa: undefined,
  })
  const { tls } = config.services.s!
  expect(tls).toEqual({
    verify: true,
    ca: expect.stringMatching(/^-----BEGIN CERTIFICATE-----/),
    cert: expect.stringMatching(/^-----BEGIN CERTIFICATE-----/),
    key: expect.stringMatching(/^-----BEGIN PRIVATE KEY-----/),
  })
})
