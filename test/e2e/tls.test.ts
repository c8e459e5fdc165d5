// The listener over TLS: versions, names, renewal of certificates under connections, clients with certificates, bodies
// of any size.
import { randomBytes } from 'node:crypto'
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Authority, createAuthority, type Pair, writePair } from '../support/certificates.js'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, sha256, startEcho, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { eventually } from '../support/waiting.js'

let authority: Authority
let stranger: Authority
let echo: Origin

beforeAll(async () => {
  authority = await createAuthority()
  stranger = await createAuthority('Somebody else')
  echo = await startEcho()
})

afterAll(() => echo.close())

/** What a client that trusts the authority alone says, and to whom. */
const to = (servername: string, more: ConnectionOptions = {}): ConnectionOptions => ({
  ca: authority.cert,
  servername,
  ...more,
})

const open = (port: number, options: ConnectionOptions) => Connection.open(port, '127.0.0.1', options)

/** The code with which the other side, or we, ended the handshake. */
async function failure(port: number, options: ConnectionOptions): Promise<string | undefined> {
  try {
    ;(await open(port, options)).destroy()
    return undefined
  } catch (error) {
    // OpenSSL 3.5 says SSL/TLS where older ones say SSLV3.
    return (error as NodeJS.ErrnoException).code?.replace('SSL/TLS_ALERT', 'SSLV3_ALERT')
  }
}

const commonName = (connection: Connection) => (connection.socket as TLSSocket).getPeerCertificate().subject.CN

async function servedTo(port: number, servername: string): Promise<string | string[] | undefined> {
  const connection = await open(port, to(servername, { checkServerIdentity: () => undefined }))
  const name = commonName(connection)
  connection.destroy()
  return name
}

function ifReset(error: NodeJS.ErrnoException): null {
  if (error.code !== 'ECONNRESET') throw error
  return null
}

function configOf(tls: object, more: object = {}): object {
  const services = { echo: { endpoints: [echo.url] } }
  return {
    services,
    routes: [{ match: { path: '/' }, service: 'echo', auth: 'none', maxBody: 'unlimited' }],
    tls,
    ...more,
  }
}

describe('over TLS', () => {
  let gateway: Gateway
  let scripted: Origin
  const LARGE = randomBytes(8 << 20)

  beforeAll(async () => {
    scripted = await startScripted({
      '/scripted/large': async (exchange) => {
        await exchange.send(`HTTP/1.1 200 OK\r\nContent-Length: ${LARGE.length}\r\n\r\n`)
        await exchange.send(LARGE)
      },
      '/scripted/large-chunked': async (exchange) => {
        await exchange.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        for (let at = 0; at < LARGE.length; at += 100_000) await exchange.chunk(LARGE.subarray(at, at + 100_000))
        await exchange.send('0\r\n\r\n')
      },
    })
    const site = writePair(await authority.issue({ cn: 'site', dns: ['site.test'] }))
    const config = configOf({ certificates: [site] }) as { services: object; routes: object[] }
    gateway = await startGateway({
      config: {
        ...config,
        services: { ...config.services, scripted: { endpoints: [scripted.url] } },
        routes: [...config.routes, { match: { path: '/scripted' }, service: 'scripted', auth: 'none' }],
      },
    })
  })

  afterAll(async () => {
    await gateway.close()
    await scripted.close()
  })

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('%s is spoken, and the service is told that it was', async (version) => {
    const connection = await open(gateway.port, to('site.test', { minVersion: version, maxVersion: version }))
    expect((connection.socket as TLSSocket).getProtocol()).toBe(version)
    const answer = await connection.exchange({})
    const seen = answer.json<Seen>()
    expect(headerOf(seen, 'x-forwarded-proto')).toEqual(['https'])
    expect(headerOf(seen, 'forwarded')).toEqual(['for=127.0.0.1;host="demo.test";proto=https'])
    expect(headerOf(seen, 'x-forwarded-for')).toEqual(['127.0.0.1'])
    expect(await gateway.logged(answer)).toMatchObject({ client: '127.0.0.1', status: 200 })
    connection.destroy()
  })

  test('TLS 1.1 is not', async () => {
    const old = to('site.test', { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT@SECLEVEL=0' })
    expect(await failure(gateway.port, old)).toBe('ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION')
  })

  test.each([
    ['ECDHE-ECDSA-CHACHA20-POLY1305', undefined],
    ['ECDHE-ECDSA-AES128-GCM-SHA256', undefined],
    ['ECDHE-ECDSA-AES128-SHA', 'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE'],
  ])('TLS 1.2 with %s: %s', async (ciphers, code) => {
    expect(await failure(gateway.port, to('site.test', { maxVersion: 'TLSv1.2', ciphers }))).toBe(code)
  })

  test('cleartext gets no answer, and the next connection does', async () => {
    const cleartext = await Connection.open(gateway.port)
    await cleartext.send({})
    await cleartext.closedByPeer()
    expect((await call(gateway.port, {}, to('site.test'))).status).toBe(200)
  })

  test('a client that offers HTTP/2 as well is served HTTP/1.1', async () => {
    const answer = await call(gateway.port, {}, to('site.test', { ALPNProtocols: ['h2', 'http/1.1'] }))
    expect(answer.status).toBe(200)
  })

  test('a session is resumed', async () => {
    const connection = await open(gateway.port, to('site.test', { maxVersion: 'TLSv1.2' }))
    const session = (connection.socket as TLSSocket).getSession()!
    await connection.exchange({})
    // Each worker has tickets of its own; the acceptor may pick either.
    const resumed: boolean[] = []
    for (let n = 0; n < 20 && !resumed.includes(true); n++) {
      const again = await open(gateway.port, to('site.test', { maxVersion: 'TLSv1.2', session }))
      resumed.push((again.socket as TLSSocket).isSessionReused())
      expect((await again.exchange({})).status).toBe(200)
    }
    expect(resumed).toContain(true)
    connection.destroy()
  })

  test.each(['/scripted/large', '/scripted/large-chunked'])('%s: arrives whole', async (target) => {
    const connection = await open(gateway.port, to('site.test'))
    await connection.send({ target })
    const head = await connection.head()
    expect(head.status).toBe(200)
    const answer = target.endsWith('chunked') ? await chunks(connection) : await connection.reader.exactly(LARGE.length)
    expect(sha256(answer)).toBe(sha256(LARGE))
    connection.destroy()
  })

  test('a large body goes up whole', async () => {
    const answer = await call(gateway.port, { method: 'POST', body: LARGE }, to('site.test'))
    expect(answer.json<Seen>()).toMatchObject({ bodyBytes: LARGE.length, bodySha256: sha256(LARGE) })
  })
})

async function chunks(connection: Connection): Promise<Buffer> {
  const parts: Buffer[] = []
  for (;;) {
    const part = await connection.chunk()
    if (part === null) return Buffer.concat(parts)
    parts.push(part)
  }
}

test('minVersion 1.3 leaves 1.2 without a cipher', async () => {
  const site = writePair(await authority.issue({ cn: 'site', dns: ['site.test'] }))
  const gateway = await startGateway({ workers: 1, config: configOf({ certificates: [site], minVersion: 1.3 }) })
  expect((await call(gateway.port, {}, to('site.test'))).status).toBe(200)
  expect(await failure(gateway.port, to('site.test', { maxVersion: 'TLSv1.2' }))).toBe(
    'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE',
  )
  await gateway.close()
})

describe('of several certificates', () => {
  let gateway: Gateway

  beforeAll(async () => {
    const folder = temporaryFolder()
    const certificates = [
      writePair(await authority.issue({ cn: 'first', dns: ['first.test'] }), folder, 'first'),
      writePair(await authority.issue({ cn: 'wildcard', dns: ['*.Wild.test', 'first.test'] }), folder, 'wildcard'),
      writePair(await authority.issue({ cn: 'exact', dns: ['exact.wild.test'] }), folder, 'exact'),
      {
        ...writePair(await authority.issue({ cn: 'named', dns: ['other.test'] }), folder, 'named'),
        names: ['named.test'],
      },
    ]
    gateway = await startGateway({ config: configOf({ certificates }) })
  })

  afterAll(() => gateway.close())

  test('/status and /metrics say when they expire, and no more', async () => {
    const status = await gateway.admin('/status')
    const { certificates } = status.json<{ certificates: { file: string; notAfter: string }[] }>()
    expect(certificates).toHaveLength(4)
    expect(Object.keys(certificates[0]!)).toEqual(['file', 'names', 'notAfter'])
    const { file, notAfter } = certificates[0]!
    const series = `tidegate_certificate_expiry_timestamp_seconds{file="${file}"}`
    expect(await gateway.metric(series)).toBe(Date.parse(notAfter) / 1000)
  })

  test.each([
    ['first.test', 'first'],
    ['one.wild.test', 'wildcard'],
    ['exact.wild.test', 'exact'],
    ['named.test', 'named'],
    ['other.test', 'first'],
    ['two.one.wild.test', 'first'],
    ['wild.test', 'first'],
    ['unknown.test', 'first'],
    ['', 'first'],
  ])('who asks for "%s" gets %s', async (servername, name) => {
    expect(await servedTo(gateway.port, servername)).toBe(name)
  })

  test('requests are served whatever the name', async () => {
    for (const name of ['first.test', 'one.wild.test', 'exact.wild.test', 'unknown.test']) {
      const answer = await call(gateway.port, { host: name }, to(name, { checkServerIdentity: () => undefined }))
      expect(answer.status).toBe(200)
    }
  })
})

describe('certificates whose files change', () => {
  let gateway: Gateway
  let folder: string
  let renewals = 0

  beforeAll(async () => {
    folder = temporaryFolder()
    const site = writePair(await authority.issue({ cn: 'one', dns: ['site.test'] }), folder)
    gateway = await startGateway({ config: configOf({ certificates: [site] }), losesWorkers: true })
  })

  afterAll(() => gateway.close())

  /** As certbot and Kubernetes do it, one file after the other. */
  function replace(pair: Partial<Pair>): void {
    for (const [kind, extension] of [
      ['cert', 'pem'],
      ['key', 'key'],
    ] as const) {
      const text = pair[kind]
      if (text === undefined) continue
      writeFileSync(join(folder, 'new'), text)
      renameSync(join(folder, 'new'), join(folder, `site.${extension}`))
    }
  }

  async function renewed(): Promise<void> {
    renewals++
    await gateway.log.find(() => count('certificates changed') === renewals, 'certificates changed')
  }

  const count = (msg: string) => gateway.log.all.filter((line) => line.msg === msg).length

  /**
   * Of every worker: each new connection goes to the one that has fewest. Empty where one was reset: a worker that is a
   * thread listens anew with other certificates, and what is in the queue of its former socket is lost.
   */
  async function served(): Promise<(string | string[] | undefined)[]> {
    const connections = []
    for (let n = 0; n < 4; n++) {
      const connection = await open(gateway.port, to('site.test')).catch(ifReset)
      if (connection !== null) connections.push(connection)
    }
    if (connections.length < 4) return []
    const names = [...new Set(connections.map(commonName))]
    for (const connection of connections) connection.destroy()
    return names
  }

  test('are served to new connections, while those that are open stay', async () => {
    const before = await open(gateway.port, to('site.test'))
    expect((await before.exchange({})).status).toBe(200)
    replace(await authority.issue({ cn: 'two', dns: ['site.test'] }))
    await renewed()
    await eventually('the second certificate', served, ['two'])
    expect(commonName(before)).toBe('one')
    expect((await before.exchange({})).status).toBe(200)
    before.destroy()
  })

  test('stay as they were while the new ones are broken, also for a worker that starts then', async () => {
    const next = await authority.issue({ cn: 'three', dns: ['site.test'] })
    replace({ cert: next.cert })
    const line = await gateway.log.find(({ msg }) => msg.startsWith('certificates cannot be used'), 'an error')
    expect(line.level).toBe(50)
    expect(String(line.problems)).toMatch(
      /^tls\.certificates\.0\.key: .*site\.key does not belong to the first certificate in /,
    )
    expect(await served()).toEqual(['two'])
    if (gateway.isolation === 'process') {
      const listens = count('worker listens')
      process.kill((await gateway.status()).workers[0]!.pid, 'SIGKILL')
      await gateway.log.find(() => count('worker listens') > listens, 'the next worker')
      expect(await served()).toEqual(['two'])
    }
    replace({ key: next.key })
    await renewed()
    await eventually('the third certificate', served, ['three'])
  })
})

describe('client certificates', () => {
  let clientAuthority: Authority
  let clients: Record<'shop' | 'unknown' | 'uri' | 'expired' | 'foreign', Pair>
  const gateways: Record<string, Gateway> = {}

  beforeAll(async () => {
    clientAuthority = await createAuthority('Client CA')
    clients = {
      shop: await clientAuthority.issue({ cn: 'shop' }),
      unknown: await clientAuthority.issue({ cn: 'nobody' }),
      uri: await clientAuthority.issue({ cn: 'shop', uris: ['spiffe://i.com/billing'], dns: ['spiffe://i.com/shop'] }),
      expired: await clientAuthority.issue({ cn: 'shop', expired: true }),
      foreign: await stranger.issue({ cn: 'shop' }),
    }
    const folder = temporaryFolder()
    const certificates = [
      writePair(await authority.issue({ cn: 'site', dns: ['site.test'] }), folder, 'site'),
      writePair(await authority.issue({ cn: 'second', dns: ['second.test'] }), folder, 'second'),
    ]
    const { cert: clientCa } = writePair(clientAuthority, folder, 'clients')
    const consumers = {
      shop: { secret: 'the-secret-of-shop', certificate: ['shop', 'shop-2'] },
      billing: { certificate: 'spiffe://i.com/billing' },
    }
    const routes = [
      { match: { path: '/open' }, service: 'echo', auth: 'none' },
      { match: { path: '/known' }, service: 'echo', auth: 'client-certificate' },
      { match: { path: '/either' }, service: 'echo', auth: ['client-certificate', 'x-m'] },
    ]
    for (const [name, rules] of Object.entries({
      request: { clientAuth: 'request' },
      require: { clientAuth: 'require' },
      uri: { clientAuth: 'require', clientName: 'uri' },
    })) {
      const tls = { certificates, clientCa, ...rules }
      gateways[name] = await startGateway({ workers: 1, config: configOf(tls, { consumers, routes }) })
    }
  })

  afterAll(async () => {
    for (const gateway of Object.values(gateways)) await gateway.close()
  })

  const ask = (gateway: string, target: string, pair: Pair | null, more: ConnectionOptions = {}) =>
    call(gateways[gateway]!.port, { target }, to('site.test', { ...pair, ...more }))

  test.each(['TLSv1.2', 'TLSv1.3'] as const)('name the consumer, %s', async (version) => {
    const answer = await ask('request', '/known', clients.shop, { minVersion: version, maxVersion: version })
    expect(answer.status).toBe(200)
    expect(await gateways.request!.logged(answer)).toMatchObject({ consumer: 'shop' })
  })

  test('name it on every request of a connection and of a resumed one', async () => {
    const { port } = gateways.request!
    const connection = await open(port, to('site.test', { ...clients.shop, maxVersion: 'TLSv1.2' }))
    for (let n = 0; n < 2; n++) expect((await connection.exchange({ target: '/known' })).status).toBe(200)
    const session = (connection.socket as TLSSocket).getSession()!
    const again = await open(port, to('site.test', { ...clients.shop, maxVersion: 'TLSv1.2', session }))
    expect((again.socket as TLSSocket).isSessionReused()).toBe(true)
    expect((await again.exchange({ target: '/known' })).status).toBe(200)
    connection.destroy()
    again.destroy()
  })

  test('are verified whatever certificate of ours the client asked for', async () => {
    const { port } = gateways.request!
    const second = (pair: Pair) => to('second.test', pair)
    expect((await call(port, { target: '/known' }, second(clients.shop))).status).toBe(200)
    await expect(call(port, { target: '/known' }, second(clients.foreign))).rejects.toThrow()
  })

  test('that name no consumer are nobody', async () => {
    const answer = await ask('request', '/known', clients.unknown)
    expect(answer.status).toBe(401)
    expect(answer.one('www-authenticate')).toBe('client-certificate')
    expect(await gateways.request!.logged(answer)).toMatchObject({ reason: 'client certificate names no consumer' })
  })

  test('may be missing where they are requested, and are asked for where the route wants one', async () => {
    expect((await ask('request', '/open', null)).status).toBe(200)
    const answer = await ask('request', '/known', null)
    expect(answer.status).toBe(401)
    expect(await gateways.request!.logged(answer)).toMatchObject({ reason: 'client certificate missing' })
    const either = await ask('request', '/either', null)
    expect(either.status).toBe(401)
    expect(await gateways.request!.logged(either)).toMatchObject({ reason: 'no credentials' })
  })

  test('may not where they are required: 403 and the end, also of what no route is for', async () => {
    for (const target of ['/open', '/nowhere']) {
      const connection = await open(gateways.require!.port, to('site.test'))
      const answer = await connection.exchange({ target })
      expect(answer.status).toBe(403)
      expect(await gateways.require!.logged(answer)).toMatchObject({ reason: 'client certificate missing' })
      await connection.closedByPeer()
    }
    expect((await ask('require', '/open', clients.unknown)).status).toBe(200)
  })

  test.each([
    ['foreign', 'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA'],
    ['expired', 'ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED'],
  ] as const)('that are %s end the handshake, and no request gets through', async (kind, code) => {
    for (const gateway of ['request', 'require']) {
      const { port } = gateways[gateway]!
      expect(await failure(port, to('site.test', { ...clients[kind], maxVersion: 'TLSv1.2' }))).toBe(code)
      // With 1.3 the client hears of it after its own part is done.
      const connection = await open(port, to('site.test', clients[kind]))
      await expect(connection.exchange({ target: '/open' })).rejects.toThrow()
    }
    expect(echo.requests.all.filter(({ url }) => url === `/${kind}`)).toEqual([])
  })

  test('name the consumer by what clientName says, and by nothing else in them', async () => {
    const answer = await ask('uri', '/known', clients.uri)
    expect(await gateways.uri!.logged(answer)).toMatchObject({ status: 200, consumer: 'billing' })
    expect((await ask('uri', '/known', clients.shop)).status).toBe(401)
  })
})
