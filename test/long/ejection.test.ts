// Endpoints that fail in all the ways in which they do, beside two that are well: each is ejected by all workers, gets
// no requests, and comes back when it is well again.
import { createServer, type RequestListener, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { call } from '../support/raw-client.js'
import { eventually } from '../support/waiting.js'

type Reason = 'failures' | 'ratio' | 'slow' | 'hanging'
type How = (response: ServerResponse, nth: number) => void

const well: How = (response) => void response.end('well')
const waiting: ServerResponse[] = []
const fail = (response: ServerResponse, status: number): void => void response.writeHead(status).end()

const ILLS: Readonly<Record<string, { readonly how: How; readonly reasons: readonly Reason[] }>> = {
  'answers 503': { how: (response) => fail(response, 503), reasons: ['failures'] },
  resets: { how: (response) => void response.socket?.resetAndDestroy(), reasons: ['failures'] },
  'answers 500 to a fifth': {
    how: (response, nth) => (nth % 5 === 0 ? fail(response, 500) : well(response, nth)),
    reasons: ['ratio'],
  },
  'is slow': { how: (response, nth) => void setTimeout(() => well(response, nth), 200), reasons: ['slow', 'hanging'] },
  hangs: { how: (response) => void waiting.push(response), reasons: ['hanging'] },
}

class Sick {
  asked = 0
  isWell = false
  url = ''
  readonly close: () => void
  private readonly listening: Promise<void>

  constructor(how: How) {
    const answer: RequestListener = (_, response) => (this.isWell ? well : how)(response, ++this.asked)
    const server = createServer(answer)
    server.keepAliveTimeout = 60_000
    this.listening = new Promise((resolve) => server.listen(0, '127.0.0.1', resolve)).then(() => {
      this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    })
    this.close = () => {
      server.close()
      server.closeAllConnections()
    }
  }

  async start(): Promise<this> {
    await this.listening
    return this
  }
}

interface Shown {
  readonly origin: string
  readonly out: readonly string[]
  readonly ejected: { reason: string; leftMs: number } | null
  readonly onProbation: boolean
  readonly failures: number
}

let origins: Origin[]
const sick = new Map<string, Sick>()
let gateway: Gateway
const pathOf = (ill: string): string => `/${ill.replaceAll(' ', '-')}`

beforeAll(async () => {
  origins = await Promise.all([startEcho(), startEcho()])
  for (const [ill, { how }] of Object.entries(ILLS)) sick.set(ill, await new Sick(how).start())
  const outliers = { ejectFor: '1s', maxEjectFor: '2s' }
  const good = origins.map(({ url }) => url)
  const services = Object.fromEntries([...sick].map(([ill, { url }]) => [pathOf(ill).slice(1), [url, ...good]]))
  gateway = await startGateway({
    config: {
      services: Object.fromEntries(
        Object.entries(services).map(([name, endpoints]) => [name, { endpoints, outliers, timeouts: { idle: '60s' } }]),
      ),
      routes: Object.keys(services).map((name) => ({ match: { path: `/${name}` }, service: name, auth: 'none' })),
    },
  })
})

afterAll(async () => {
  await gateway.close()
  for (const one of sick.values()) one.close()
  await Promise.all(origins.map((origin) => origin.close()))
})

/** Ends the load of a test that has failed. */
let stopLoad = (): void => {}
afterEach(() => stopLoad())

/** Requests at a steady pace, whatever becomes of them, until it is stopped: then their statuses. */
function load(target: string): () => Promise<number[]> {
  const answers: Promise<number>[] = []
  const timer = setInterval(() => {
    const answer = call(gateway.port, { target }).then(({ status }) => status)
    // Told to whoever stops it.
    answer.catch(() => {})
    answers.push(answer)
  }, 5)
  stopLoad = () => clearInterval(timer)
  return () => {
    stopLoad()
    return Promise.all(answers)
  }
}

async function shown(url: string): Promise<Shown> {
  const { services } = await gateway.status<{ services: { endpoints: Shown[] }[] }>()
  return services.flatMap(({ endpoints }) => endpoints).find(({ origin }) => origin === url)!
}

test.each(Object.entries(ILLS))('one that %s', async (ill, { reasons }) => {
  const one = sick.get(ill)!
  const stop = load(pathOf(ill))
  const { reason, forMs } = await gateway.log.find(
    ({ msg, endpoint }) => msg === 'endpoint is ejected' && endpoint === one.url,
    `${ill}: ejected`,
  )
  expect(reasons).toContain(reason)
  expect(forMs).toBe(1000)
  one.isWell = true
  for (const response of waiting.splice(0)) response.end('late')
  await gateway.log.find(
    ({ msg, endpoint }) => msg === 'ejected endpoint is back' && endpoint === one.url,
    `${ill}: back`,
  )
  await eventually(`${ill}: well`, async () => {
    for (const response of waiting.splice(0)) response.end('late')
    const { out, onProbation } = await shown(one.url)
    return [out, onProbation]
  }, [[], false])
  const statuses = await stop()
  // The ejection itself costs no request.
  if (ill === 'hangs' || ill === 'is slow') expect(new Set(statuses)).toEqual(new Set([200]))
  const lines = gateway.log.all.filter(({ msg, endpoint }) => msg === 'endpoint is ejected' && endpoint === one.url)
  const service = pathOf(ill).slice(1)
  for (const each of ['failures', 'ratio', 'slow', 'hanging'])
    expect(
      await gateway.metric(
        `tidegate_endpoint_ejections_total{service="${service}",endpoint="${one.url}",reason="${each}"}`,
      ),
    ).toBe(lines.filter((line) => line.reason === each).length)
  expect(
    gateway.log.all.filter(
      ({ msg, endpoint }) => msg === 'endpoint is ejected' && origins.some(({ url }) => url === endpoint),
    ),
  ).toEqual([])
})

test('gets no requests while it is out, from any worker', async () => {
  const one = sick.get('answers 503')!
  one.isWell = false
  const { time } = gateway.log.all.at(-1)!
  const stop = load(pathOf('answers 503'))
  await gateway.log.find(
    (line) => line.msg === 'endpoint is ejected' && line.endpoint === one.url && line.time > time,
    'ejected again',
  )
  const { ejected } = await shown(one.url)
  await stop()
  const { asked } = one
  const answers = await Promise.all(
    Array.from({ length: 12 }, () => call(gateway.port, { target: pathOf('answers 503') })),
  )
  const { ejected: still } = await shown(one.url)
  expect(ejected?.reason).toBe('failures')
  // It may have come back meanwhile on a slow machine; then nothing is said of this time.
  if (still === null || still.leftMs > ejected!.leftMs) return
  expect(one.asked).toBe(asked)
  expect(answers.map(({ status }) => status)).toEqual(Array(12).fill(200))
})
