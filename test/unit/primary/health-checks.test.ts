import { once } from 'node:events'
import { createServer, type RequestListener, type Server } from 'node:http'
import { type AddressInfo, createServer as createTcpServer } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import type { Endpoint, HealthCheck, Service } from '../../../src/config/compile.js'
import { type HealthChecks, startHealthChecks } from '../../../src/primary/health-checks.js'
import { EndpointTable } from '../../../src/state/endpoint-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Logger } from '../../../src/telemetry/log.js'
import { refusingPort } from '../../support/origins.js'

const RULES: HealthCheck = { path: '/healthz', intervalMs: 15, timeoutMs: 10_000, healthyAfter: 2, unhealthyAfter: 3 }

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

async function listening(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  cleanups.push(() => {
    server.closeAllConnections()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

function origin(handler: RequestListener): Promise<number> {
  return listening(createServer(handler))
}

function check(ports: readonly number[], rules: HealthCheck = RULES) {
  const spec = {
    workers: 1,
    rateLimitKeys: 64,
    services: 1,
    endpoints: ports.length,
    routes: 1,
  }
  const segment = openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
  const table = new EndpointTable(segment, spec)
  const changes = new Changes()
  const endpoints: Endpoint[] = ports.map((port, index) => ({
    origin: `http://127.0.0.1:${port}`,
    authority: `127.0.0.1:${port}`,
    socketPath: null,
    slot: index,
  }))
  const service = { name: 'demo', endpoints, health: rules } as unknown as Service
  const unchecked = { name: 'unchecked', endpoints, health: null } as unknown as Service
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
})
