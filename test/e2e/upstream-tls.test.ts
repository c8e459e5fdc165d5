// Services that speak TLS: whom the gateway believes, what it asks for and shows, and what it says when it is refused.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Authority, createAuthority, type Pair, writePair } from '../support/certificates.js'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { call } from '../support/raw-client.js'

let authority: Authority
let stranger: Authority
let gateway: Gateway
const origins: Origin[] = []

/** The services of the gateway; each has a route of its name as its path. */
const services: Record<string, object> = {}

async function origin(own: Pair, more: object = {}): Promise<Origin> {
  const started = await startEcho({ tls: { ...own, ...more } })
  origins.push(started)
  return started
}

beforeAll(async () => {
  authority = await createAuthority()
  stranger = await createAuthority('Somebody else')
  const folder = temporaryFolder()
  const { cert: ca } = writePair(authority, folder, 'ca')
  const localhost = { cn: 'origin', dns: ['localhost', 'other.test'], ips: ['127.0.0.1'] }
  const well = await origin(await authority.issue(localhost))
  const wrongName = await origin(await authority.issue({ cn: 'localhost', dns: ['else.test'] }))
  const expired = await origin(await authority.issue({ ...localhost, expired: true }))
  const foreign = await origin(await stranger.issue(localhost))
  const demands = { ca: authority.cert, requestCert: true, rejectUnauthorized: true }
  const wantsCertificate = await origin(await authority.issue(localhost), demands)
  const saysSoAtOnce = await origin(await authority.issue(localhost), { ...demands, maxVersion: 'TLSv1.2' })
  const own = writePair(await authority.issue({ cn: 'gateway', passphrase: 'pass-of-the-key' }), folder, 'own')
  const notOurs = writePair(await stranger.issue({ cn: 'gateway' }), folder, 'not-ours')
  const passphrase = 'pass-of-the-key'
  Object.assign(services, {
    well: { endpoints: [well.url], tls: { ca }, health: { interval: '1s', timeout: '1s', path: '/health' } },
    address: { endpoints: [`https://127.0.0.1:${well.port}`], tls: { ca } },
    named: { endpoints: [well.url], tls: { ca, serverName: 'other.test' } },
    'not-named': { endpoints: [well.url], tls: { ca, serverName: 'third.test' } },
    'node-s-own-authorities': { endpoints: [well.url] },
    'wrong-name': { endpoints: [wrongName.url], tls: { ca } },
    expired: { endpoints: [expired.url], tls: { ca } },
    foreign: { endpoints: [foreign.url], tls: { ca } },
    unverified: { endpoints: [foreign.url], tls: { verify: false } },
    mutual: { endpoints: [wantsCertificate.url], tls: { ca, ...own, passphrase } },
    'mutual-without': { endpoints: [wantsCertificate.url], tls: { ca } },
    'mutual-foreign': { endpoints: [wantsCertificate.url], tls: { ca, ...notOurs } },
    'mutual-without-1.2': { endpoints: [saysSoAtOnce.url], tls: { ca } },
    'mutual-foreign-1.2': { endpoints: [saysSoAtOnce.url], tls: { ca, ...notOurs } },
  })
  const routes = Object.keys(services).map((service) => ({ match: { path: `/${service}` }, service, auth: 'none' }))
  const preserving = ['well', 'address'].map((service) => ({
    match: { path: `/preserving/${service}` },
    service,
    auth: 'none',
    preserveHost: true,
  }))
  gateway = await startGateway({ workers: 1, config: { services, routes: [...routes, ...preserving] } })
})

afterAll(async () => {
  await gateway.close()
  for (const one of origins) await one.close()
})

async function seen(target: string, host = 'demo.test'): Promise<Seen> {
  const answer = await call(gateway.port, { target, host })
  expect(answer.status, answer.text).toBe(200)
  return answer.json<Seen>()
}

async function refusal(target: string): Promise<string | undefined> {
  const answer = await call(gateway.port, { target })
  expect(answer.status).toBe(502)
  expect(answer.json()).toMatchObject({ code: 'upstream_error' })
  return (await gateway.logged(answer)).reason
}

describe('a service is believed', () => {
  test('when its certificate is from the authority of tls.ca and has the name of the endpoint, which is asked for', async () => {
    expect(await seen('/well')).toMatchObject({ serverName: 'localhost' })
  })

  test('when the certificate has the address of the endpoint; an address is not asked for by name', async () => {
    expect(await seen('/address')).toMatchObject({ serverName: '' })
  })

  test('when the certificate has the name of tls.serverName, which is asked for in place of the endpoint', async () => {
    expect(await seen('/named')).toMatchObject({ serverName: 'other.test' })
  })

  test('whatever it shows, with verify: false', async () => {
    expect(await seen('/unverified')).toMatchObject({ serverName: 'localhost' })
  })

  test("and asked for by the same name when a caller's Host is passed on, on one connection", async () => {
    const before = origins[0]!.connections
    for (const host of ['else.test', 'evil.test', 'else.test']) {
      const request = await seen('/preserving/well', host)
      expect(request).toMatchObject({ serverName: 'localhost' })
      expect(headerOf(request, 'host')).toEqual([host])
      expect(await seen('/preserving/address', host)).toMatchObject({ serverName: '' })
    }
    const asked = origins[0]!.requests.all.filter(({ url }) => url.startsWith('/health')).length
    expect(origins[0]!.connections - before - asked).toBeLessThanOrEqual(2)
  })

  test('by its health check too', async () => {
    const { endpoint, service } = await gateway.log.find((line) => line.msg === 'endpoint is up', 'endpoint is up')
    expect({ endpoint, service }).toEqual({ endpoint: origins[0]!.url, service: 'well' })
  })
})

describe('a service gets no request, and the log says why,', () => {
  test.each([
    ['/node-s-own-authorities', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    ['/foreign', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE'],
    ['/expired', 'CERT_HAS_EXPIRED'],
    ['/wrong-name', 'ERR_TLS_CERT_ALTNAME_INVALID'],
    ['/not-named', 'ERR_TLS_CERT_ALTNAME_INVALID'],
  ])('%s: %s', async (target, code) => {
    expect(await refusal(target)).toBe(`certificate refused: ${code}`)
    for (const one of origins) expect(one.requests.all.filter(({ url }) => url === target)).toEqual([])
  })
})

describe('a service that wants a certificate', () => {
  test('is shown the one of tls.cert, its key opened with the passphrase', async () => {
    expect(await seen('/mutual')).toMatchObject({ clientName: 'gateway' })
  })

  // What refuses a certificate may reset the connection before its alert is read; with TLS 1.3 the gateway takes it for
  // open by then.
  test.each([
    ['/mutual-without-1.2', /^TLS: SSL(V3|\/TLS)_ALERT_HANDSHAKE_FAILURE$/],
    ['/mutual-foreign-1.2', /^(TLS: TLSV1_ALERT_UNKNOWN_CA|connection lost)$/],
    ['/mutual-without', /^(TLS: TLSV13_ALERT_CERTIFICATE_REQUIRED|connection lost)$/],
    ['/mutual-foreign', /^(TLS: TLSV1_ALERT_UNKNOWN_CA|connection lost)$/],
  ])('and gets none, or a foreign one, gets no request: %s: %s', async (target, reason) => {
    expect(await refusal(target)).toMatch(reason)
    for (const one of origins) expect(one.requests.all.filter(({ url }) => url === target)).toEqual([])
  })
})
