// A service that fails under load, and four workers before it: all leave it alone at once, and while it recovers it is
// asked exactly as often as the breaker has probes, whoever asks and whoever dies.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, type LogLine, startGateway } from '../support/gateway.js'
import { Load } from '../support/load.js'
import { type Origin, type RawExchange, startEcho, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireProcesses } from '../support/requirements.js'

const WORKERS = 4
const CLIENTS = 16
const PROBES = 3

/** Asked before what leads to it. */
function nextChange(gateway: Gateway, service: string, to: string): Promise<LogLine> {
  const fits = (line: LogLine) => line.msg === 'breaker changed state' && line.service === service && line.to === to
  const count = gateway.log.all.filter(fits).length + 1
  return gateway.log.take(count, fits, `${service} ${to}`).then((lines) => lines.at(-1) as LogLine)
}

describe('a service that starts to fail', () => {
  const ROUNDS = 5
  /** No worker forwards later than this after the shared state has changed. */
  const MOST_MS = 100
  const services = Array.from({ length: ROUNDS }, (_, i) => `s${i}`)
  const failing = new Set<string>()
  /** When the service was asked, by the clock of the log. */
  let askedAt: number[] = []
  let origin: Origin
  let gateway: Gateway

  beforeAll(async () => {
    origin = await startEcho({
      status: (path) => {
        askedAt.push(Date.now())
        return failing.has(path.slice(1)) ? 503 : 200
      },
    })
    gateway = await startGateway({
      workers: WORKERS,
      config: {
        services: Object.fromEntries(
          services.map((name) => [
            name,
            { endpoints: [origin.url], breaker: { window: '1s', minRequests: 20, failureRatio: 0.5, openFor: '60s' } },
          ]),
        ),
        routes: services.map((name) => ({
          match: { path: `/${name}` },
          service: name,
          auth: 'none',
          accessLog: false,
        })),
      },
    })
  })

  afterAll(async () => {
    await gateway.close()
    await origin.close()
  })

  test.each(services)('is left alone by all workers within 100 ms, %s', async (name) => {
    const load = await Load.start(gateway, CLIENTS, `/${name}`)
    await load.more(1000, 200)
    const opening = nextChange(gateway, name, 'open')
    failing.add(name)
    const { time: openedAt } = await opening
    // Long enough for everybody to have asked many times.
    await load.more(5000, 503)
    await load.stop()
    const late = askedAt.filter((at) => at > openedAt)
    // What was on its way when the breaker opened.
    expect(late.length).toBeLessThanOrEqual(load.clients)
    for (const at of late) expect(at - openedAt).toBeLessThanOrEqual(MOST_MS)
    expect(load.of(200).count).toBeGreaterThanOrEqual(1000)
    // One change, made by one of them.
    const lines = gateway.log.all.filter((line) => line.msg === 'breaker changed state' && line.service === name)
    expect(lines.map((line) => line.to)).toEqual(['open'])
    askedAt = []
  })
})

describe('a service that recovers', () => {
  let origin: Origin
  let gateway: Gateway
  let mode: 'fails' | 'holds' | 'is well' = 'fails'
  /** Requests whose answers wait for the test. */
  let held: RawExchange[] = []
  let onHeld = () => {}

  beforeAll(async () => {
    const answer = (exchange: RawExchange) => {
      if (mode !== 'holds') return exchange.answer(mode === 'fails' ? 503 : 200)
      held.push(exchange)
      onHeld()
    }
    origin = await startScripted({ '/probed': answer, '/left': answer })
    const breaker = {
      window: '1s',
      minRequests: 5,
      failureRatio: 0.5,
      openFor: '300ms',
      maxOpenFor: '300ms',
      probes: PROBES,
      ramp: '0s',
    }
    const route = (name: string) => ({ match: { path: `/${name}` }, service: name, auth: 'none', accessLog: false })
    gateway = await startGateway({
      workers: WORKERS,
      losesWorkers: true,
      config: {
        services: {
          probed: { endpoints: [origin.url], breaker },
          // A probe that does not come back is given up after 65 s.
          left: { endpoints: [origin.url], breaker, timeouts: { firstByte: '60s', total: '60s' } },
        },
        routes: [route('probed'), route('left')],
      },
    })
  })

  afterAll(async () => {
    await gateway.close()
    await origin.close()
  })

  test('is asked exactly three times while the breaker is half open, ten times out of ten', async () => {
    for (let round = 1; round <= 10; round++) {
      mode = 'fails'
      const opening = nextChange(gateway, 'probed', 'open')
      const failure = await Load.start(gateway, CLIENTS, '/probed')
      await opening
      // With it ends all that was on its way: what comes from here on are probes.
      await failure.stop()
      mode = 'holds'
      held = []
      const closing = nextChange(gateway, 'probed', 'closed')
      const before = origin.requests.all.length

      const load = await Load.start(gateway, CLIENTS, '/probed')
      await origin.requests.take(before + PROBES, () => true, 'the probes')
      for (let answered = 0; answered < PROBES; answered++) {
        // Whoever asks meanwhile is refused, for the breaker is half open until the last probe is back.
        await load.more(500, 503)
        expect(origin.requests.all.length).toBe(before + PROBES)
        if (answered === PROBES - 1) mode = 'is well'
        await held[answered]!.answer(200)
      }
      await closing
      await load.more(100, 200)
      await load.stop()
    }
  })

  test('is asked again at once for as many probes as a killed worker held', async (context) => {
    requireProcesses(context, gateway)
    mode = 'fails'
    held = []
    const opening = nextChange(gateway, 'left', 'open')
    for (let i = 0; i < 5; i++) await call(gateway.port, { target: '/left' })
    await opening
    mode = 'holds'
    const connections: Connection[] = []
    /** True where the service has got it, false where the breaker refused. */
    const getsThrough = async (): Promise<boolean> => {
      const connection = await Connection.open(gateway.port)
      connections.push(connection)
      return Promise.race([
        new Promise<boolean>((resolve) => {
          onHeld = () => resolve(true)
        }),
        connection.exchange({ target: '/left' }).then(
          (answer) => answer.json<{ code: string }>().code !== 'breaker_open',
          // Cut, where its worker was killed.
          () => false,
        ),
      ])
    }
    while (held.length < PROBES) await getsThrough()
    expect(await getsThrough()).toBe(false)

    const { workers } = await gateway.status()
    const [holder] = [...workers].sort((a, b) => b.inFlight - a.inFlight)
    const freed = holder!.inFlight
    expect(freed).toBeGreaterThan(0)
    process.kill(holder!.pid, 'SIGKILL')
    await gateway.log.find((line) => line.msg === 'worker died' && line.slot === holder!.slot, 'the holder')
    for (let i = 0; i < freed; i++) expect(await getsThrough()).toBe(true)
    expect(await getsThrough()).toBe(false)

    const closing = nextChange(gateway, 'left', 'closed')
    for (const exchange of held) if (!exchange.socket.destroyed) await exchange.answer(200)
    await closing
    for (const connection of connections) connection.destroy()
  })
})
