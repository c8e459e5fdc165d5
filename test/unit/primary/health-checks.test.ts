import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, createServer as createTcpServer, type Socket, type Server as TcpServer } from 'node:net'
import { join } from 'node:path'
import { createServer as createTlsServer } from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import { endpointOf, type Service } from '../../../src/config/compile.js'
import type { HealthCheck, HttpCheck } from '../../../src/config/health.js'
import { type HealthChecks, startHealthChecks } from '../../../src/primary/health-checks.js'
import { EndpointTable } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Logger } from '../../../src/telemetry/log.js'
import { createAuthority } from '../../support/certificates.js'
import { temporaryFolder } from '../../support/gateway.js'
import { refusingPort } from '../../support/origins.js'
import { eventually } from '../../support/waiting.js'

const HTTP: HttpCheck = { method: 'GET', path: '/healthz', host: null, statuses: [[200, 299]], text: '' }
const RULES: HealthCheck = { http: HTTP, intervalMs: 15, timeoutMs: 10_000, healthyAfter: 2, unhealthyAfter: 3 }
const TCP: HealthCheck = { ...RULES, http: null }

interface Line {
  readonly message: string
  readonly [key: string]: unknown
}

/** Every change as it is logged, to be awaited one by one. */
class Changes {
  readonly lines: Line[] = []
  private wake: () => void = () => {}
  readonly log = { info: this.take.bind(this), warn: this.take.bind(this) } as unknown as Logger

  private take(fields: object, message: string): void {
    this.lines.push({ ...fields, message })
    this.wake()
  }

  async next(count: number): Promise<Line> {
    while (this.lines.length < count) await new Promise<void>((resolve) => (this.wake = resolve))
    return this.lines[count - 1] as Line
  }
}

const cleanups: (() => unknown)[] = []
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup()
})

async function listening(server: TcpServer): Promise<number> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => sockets.add(socket))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(() => {
    server.close()
    for (const socket of sockets) socket.destroy()
  })
  return (server.address() as AddressInfo).port
}

function origin(handler: RequestListener): Promise<number> {
  return listening(createServer(handler))
}

function asking(http: Partial<HttpCheck>): HealthCheck {
  return { ...RULES, http: { ...HTTP, ...http } }
}

function check(places: readonly (number | string)[], rules: HealthCheck = RULES, tls: Partial<Service['tls']> = {}) {
  const spec = {
    workers: 1,
    rateLimitKeys: 64,
    services: 1,
    endpoints: places.length,
    routes: 1,
  }
  const segment = openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
  const table = new EndpointTable(segment, spec)
  const changes = new Changes()
  const endpoints = places.map((place, index) =>
    endpointOf(typeof place === 'string' ? place : `http://127.0.0.1:${place}`, tls.serverName, index),
  )
  const service = { name: 'demo', endpoints, health: rules, tls: { verify: true, ...tls } } as unknown as Service
  const unchecked = { ...service, name: 'unchecked', health: null }
  const checks: HealthChecks = startHealthChecks({ table, services: [unchecked, service], log: changes.log })
  cleanups.push(() => checks.stop())
  return { table, changes, checks, service }
}

const isUp = (table: EndpointTable, slot: number): boolean => table.out(slot) === 0

describe('health checks', () => {
  it('count an endpoint as up until the first answer, and settle that with one success', async () => {
    const port = await origin((_, res) => res.end('fine'))
    const { table, changes } = check([port])
    expect(table.health(0)).toBe('unknown')
    expect(isUp(table, 0)).toBe(true)
    expect(await changes.next(1)).toMatchObject({ message: 'endpoint is up', service: 'demo', from: 'unknown' })
    expect(table.health(0)).toBe('up')
  })

  it('ask for the configured path, on a new connection each time', async () => {
    const paths: string[] = []
    const sockets = new Set<unknown>()
    let seen: () => void = () => {}
    const third = new Promise<void>((resolve) => (seen = resolve))
    const port = await origin((req, res) => {
      paths.push(`${req.method} ${req.url}`)
      sockets.add(req.socket)
      res.end()
      if (paths.length === 3) seen()
    })
    check([port])
    await third
    expect(paths.slice(0, 3)).toEqual(Array(3).fill('GET /healthz'))
    expect(sockets.size).toBeGreaterThanOrEqual(3)
  })

  it.each([500, 404, 302])('take an endpoint that answers %i down after unhealthyAfter failures', async (status) => {
    let asked = 0
    const port = await origin((_, res) => {
      asked++
      res.writeHead(status).end()
    })
    const { table, changes } = check([port])
    expect(await changes.next(1)).toMatchObject({ message: 'endpoint is down', reason: `status ${status}` })
    expect(asked).toBe(RULES.unhealthyAfter)
    expect(isUp(table, 0)).toBe(false)
  })

  it('take an endpoint that stalls down, whether before its headers or in its body', async () => {
    const silent = await origin(() => {})
    const halfway = await origin((_, res) => {
      res.writeHead(200, { 'content-length': 100 })
      res.write('half')
    })
    const { table, changes } = check([silent, halfway], { ...RULES, timeoutMs: 80 })
    expect(await changes.next(2)).toMatchObject({ reason: 'no answer within 80 ms' })
    expect([isUp(table, 0), isUp(table, 1)]).toEqual([false, false])
  })

  it('take an endpoint that refuses, resets or talks nonsense down and leave its neighbour up', async () => {
    const refusing = await refusingPort()
    const resetting = await origin((req) => req.socket.destroy())
    const nonsense = createTcpServer((socket) => socket.on('error', () => {}).end('SSH-2.0-OpenSSH\r\n'))
    nonsense.listen(0, '127.0.0.1')
    await once(nonsense, 'listening')
    cleanups.push(() => nonsense.close())
    const fine = await origin((_, res) => res.end())
    const { table, changes } = check([refusing, resetting, (nonsense.address() as AddressInfo).port, fine])
    await changes.next(4)
    expect([0, 1, 2, 3].map((i) => table.health(i))).toEqual(['down', 'down', 'down', 'up'])
    expect(changes.lines.filter((line) => line.message === 'endpoint is down').map((line) => line.reason)).toEqual(
      expect.arrayContaining([expect.stringContaining('ECONNREFUSED')]),
    )
  })

  it('bring an endpoint back after healthyAfter successes, with one line per change', async () => {
    let status = 503
    let successes = 0
    const port = await origin((_, res) => {
      if (status === 200) successes++
      res.writeHead(status).end()
    })
    const { table, changes } = check([port])
    await changes.next(1)
    expect(isUp(table, 0)).toBe(false)
    status = 200
    expect(await changes.next(2)).toMatchObject({ message: 'endpoint is up', from: 'down' })
    expect(successes).toBe(RULES.healthyAfter)
    status = 503
    expect(await changes.next(3)).toMatchObject({ message: 'endpoint is down', from: 'up' })
    expect(changes.lines).toHaveLength(3)
  })

  it('do not take an endpoint down whose failures are not in a row', async () => {
    let asked = 0
    let seen: () => void = () => {}
    const enough = new Promise<void>((resolve) => (seen = resolve))
    const port = await origin((_, res) => {
      asked++
      res.writeHead(asked % 3 === 0 ? 200 : 500).end()
      if (asked === 12) seen()
    })
    const { table, changes } = check([port])
    await enough
    expect(isUp(table, 0)).toBe(true)
    expect(changes.lines.map((line) => line.message)).toEqual(['endpoint is up'])
  })

  it('stop: the check under way is cut and changes nothing', async () => {
    let arrived: () => void = () => {}
    const request = new Promise<void>((resolve) => (arrived = resolve))
    let left: () => void = () => {}
    const cut = new Promise<void>((resolve) => (left = resolve))
    const port = await origin((req) => {
      req.socket.on('close', left)
      arrived()
    })
    const { table, changes, checks } = check([port], { ...RULES, unhealthyAfter: 1, timeoutMs: 60_000 })
    await request
    checks.stop()
    await cut
    expect(table.health(0)).toBe('unknown')
    expect(changes.lines).toEqual([])
  })

  it('stop: a reload that ends later begins none', async () => {
    let asked = 0
    const port = await origin((_, res) => {
      asked++
      res.end()
    })
    const { changes, checks, service } = check([port])
    await changes.next(1)
    checks.stop()
    const before = asked
    checks.update([service])
    await new Promise((resolve) => setTimeout(resolve, 3 * RULES.intervalMs))
    expect(asked).toBe(before)
  })

  it('send the method, path and host that they are told, and nothing else', async () => {
    const seen: string[] = []
    const port = await origin((req, res) => {
      seen.push(`${req.method} ${req.url} ${req.headers.host}`)
      res.end()
    })
    const { changes } = check([port], asking({ method: 'HEAD', path: '/up?full=1', host: 'shop.example:81' }))
    await changes.next(1)
    expect(seen[0]).toBe('HEAD /up?full=1 shop.example:81')
  })

  it('take the statuses that they are told, and no others', async () => {
    const [teapot, other, fine] = await Promise.all(
      [418, 430, 200].map((status) => origin((_, res) => res.writeHead(status).end())),
    )
    const statuses = [
      [200, 204],
      [418, 418],
    ] as const
    const { table, changes } = check([teapot!, other!, fine!], asking({ statuses }))
    await changes.next(3)
    expect([0, 1, 2].map((slot) => table.health(slot))).toEqual(['up', 'down', 'up'])
    expect(changes.lines.find(({ message }) => message === 'endpoint is down')?.reason).toBe('status 430')
  })

  it('find the text in the body, also where chunks cut it, and in a body that never ends', async () => {
    const cut = await origin(async (_, res) => {
      res.write('all is w')
      await new Promise((resolve) => setImmediate(resolve))
      res.end('\u00e4ll')
    })
    const endless = await origin((_, res) => void res.write('all is w\u00e4ll, and so on'))
    const { table, changes } = check([cut, endless], asking({ text: 'is w\u00e4ll' }))
    await changes.next(2)
    expect([table.health(0), table.health(1)]).toEqual(['up', 'up'])
  })

  it('take an endpoint down whose body has not the text, or has it behind 64 KiB, or has no end', async () => {
    const wrong = await origin((_, res) => res.end('maintenance'))
    const behind = await origin((_, res) => res.end(`${'x'.repeat(65_536)}fine`))
    const endless = await origin((_, res) => {
      const more = (): void => {
        while (res.write('x'.repeat(4096)));
      }
      res.on('drain', more)
      more()
    })
    const silent = await origin((_, res) => void res.write('it would be f'))
    const rules = { ...asking({ text: 'fine' }), timeoutMs: 500 }
    const { changes } = check([wrong, behind, endless, silent], rules)
    await changes.next(4)
    const reasons = new Map(changes.lines.map(({ endpoint, reason }) => [endpoint, reason]))
    expect([wrong, behind, endless, silent].map((port) => reasons.get(`http://127.0.0.1:${port}`))).toEqual([
      '"fine" is not in the body',
      '"fine" is not in the first 64 KiB of the body',
      '"fine" is not in the first 64 KiB of the body',
      'no answer within 500 ms',
    ])
  })

  it('without a text are content with the first 64 KiB of a body', async () => {
    const large = await origin((_, res) => {
      res.writeHead(200, { 'content-length': 1e9 })
      res.write('x'.repeat(70_000))
    })
    const { table, changes } = check([large])
    await changes.next(1)
    expect(table.health(0)).toBe('up')
  })

  it('over TCP are content with a connection on which nothing comes', async () => {
    let bytes = 0
    const accepting = createTcpServer((socket) =>
      socket.on('error', () => {}).on('data', ({ length }) => (bytes += length)),
    )
    const port = await listening(accepting)
    const folder = temporaryFolder()
    const local = createTcpServer((socket) => socket.on('error', () => {})).listen(join(folder, 'socket'))
    await once(local, 'listening')
    cleanups.push(() => local.close())
    const places = [port, `unix:${join(folder, 'socket')}`, await refusingPort(), `unix:${join(folder, 'missing')}`]
    const { table, changes } = check(places, TCP)
    await changes.next(4)
    expect([0, 1, 2, 3].map((slot) => table.health(slot))).toEqual(['up', 'up', 'down', 'down'])
    expect(bytes).toBe(0)
  })

  it('over TCP complete the TLS handshake of https endpoints, and check whom they speak to', async () => {
    const authority = await createAuthority()
    const stranger = await createAuthority('Another CA')
    const serve = async (pair: { cert: string; key: string }) =>
      `https://localhost:${await listening(createTlsServer(pair, (socket) => socket.on('error', () => {})))}`
    const bare = async (accept: (socket: Socket) => void) =>
      `https://localhost:${await listening(createTcpServer((socket) => accept(socket.on('error', () => {}))))}`
    const places = [
      await serve(await authority.issue({ dns: ['localhost'] })),
      await serve(await stranger.issue({ dns: ['localhost'] })),
      await serve(await authority.issue({ dns: ['elsewhere.example'] })),
      await bare(() => {}),
      await bare((socket) => socket.resetAndDestroy()),
    ]
    const { table, changes } = check(places, { ...TCP, timeoutMs: 1500, unhealthyAfter: 1 }, { ca: authority.cert })
    await changes.next(places.length)
    expect(places.map((_, slot) => table.health(slot))).toEqual(['up', 'down', 'down', 'down', 'down'])
    const reasons = new Map(changes.lines.map(({ endpoint, reason }) => [endpoint, reason]))
    expect(places.slice(1).map((place) => reasons.get(place))).toEqual([
      expect.stringMatching(/certificate/),
      expect.stringMatching(/elsewhere\.example/),
      'no answer within 1500 ms',
      expect.stringMatching(/ECONNRESET|disconnected before/),
    ])
  })

  it('heed a CA that a reload brings', async () => {
    const authority = await createAuthority()
    const other = await createAuthority('Another CA')
    const pair = await authority.issue({ dns: ['localhost'] })
    const port = await listening(createTlsServer(pair, (socket) => socket.on('error', () => {})))
    const rules = { ...TCP, unhealthyAfter: 1, healthyAfter: 1 }
    const { changes, checks, service } = check([`https://localhost:${port}`], rules, { ca: other.cert })
    expect(await changes.next(1)).toMatchObject({ message: 'endpoint is down' })
    checks.update([{ ...service, tls: { ...service.tls, ca: authority.cert } }])
    expect(await changes.next(2)).toMatchObject({ message: 'endpoint is up' })
  })

  it('over https ask for the name of the service, whatever the Host is', async () => {
    const authority = await createAuthority()
    const pair = await authority.issue({ dns: ['inner.example'] })
    const port = await listening(createHttpsServer(pair, (req, res) => res.end(req.headers.host)))
    const tls = { ca: authority.cert, serverName: 'inner.example' }
    const { table, changes } = check(
      [`https://localhost:${port}`],
      asking({ host: 'shop.example', text: 'shop.example' }),
      tls,
    )
    await changes.next(1)
    expect(table.health(0)).toBe('up')
  })

  it('report since when an endpoint is in its state, and why its last check failed', async () => {
    let status = 200
    let asked = 0
    const port = await origin((_, res) => {
      asked++
      res.writeHead(status).end()
    })
    const { checks, changes, service, table } = check([port])
    const endpoint = service.endpoints[0]!
    const begun = Date.now()
    await changes.next(1)
    const up = checks.report(endpoint)!
    expect(up.lastFailure).toBeNull()
    status = 503
    await changes.next(2)
    const down = checks.report(endpoint)!
    expect(down.lastFailure?.reason).toBe('status 503')
    expect(Date.parse(down.since)).toBeGreaterThanOrEqual(Date.parse(up.since))
    expect(Date.parse(up.since)).toBeGreaterThanOrEqual(begun - 1000)
    // With other rules it is still down, and since then.
    checks.update([{ ...service, health: asking({ path: '/other' }) }])
    const before = asked
    await eventually(
      'the next check',
      () => asked,
      (now) => now > before + 1,
    )
    expect(checks.report(endpoint)?.since).toBe(down.since)
    expect(table.health(endpoint.slot)).toBe('down')
    // Checked no more, and another endpoint in its place.
    checks.update([{ ...service, health: null }])
    expect(checks.report(endpoint)).toBeNull()
  })
})
