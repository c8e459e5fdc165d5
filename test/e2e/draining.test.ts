// An endpoint that an operator drains: no new request, no request cut, and nothing forgets it but the operator.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, killAll, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, type RawExchange, startScripted } from '../support/origins.js'
import { startPrimaryHere } from '../support/primary.js'
import { type Answer, Connection, call } from '../support/raw-client.js'
import { requireProcesses } from '../support/requirements.js'
import { deferred, eventually } from '../support/waiting.js'

let a: Origin
let b: Origin
const release = deferred()
/** Connections to `a` that are open. */
let open = 0

beforeAll(async () => {
  const sockets = new Set<unknown>()
  const noting = (answer: (exchange: RawExchange) => Promise<void>) => (exchange: RawExchange) => {
    if (!sockets.has(exchange.socket)) {
      sockets.add(exchange.socket)
      open++
      exchange.socket.once('close', () => open--)
    }
    return answer(exchange)
  }
  a = await startScripted({
    '/': noting((exchange) => exchange.answer(200, {}, 'a')),
    '/slow': noting(async (exchange) => {
      await release.promise
      await exchange.answer(200, {}, 'slow a')
    }),
    '/upload': noting(async (exchange) => exchange.answer(200, {}, `${(await exchange.body()).bytes.length} at a`)),
  })
  b = await startScripted({
    '/': (exchange) => exchange.answer(200, {}, 'b'),
    '/slow': (exchange) => exchange.answer(200, {}, 'b'),
    '/upload': async (exchange) => exchange.answer(200, {}, `${(await exchange.body()).bytes.length} at b`),
  })
})

afterAll(() => Promise.all([a.close(), b.close()]))

const configured = (endpoints: readonly string[], route: object = {}) => ({
  services: { site: { endpoints }, other: { endpoints: [b.url] } },
  routes: [{ match: { path: '/' }, service: 'site', auth: 'none', ...route }],
})

function post(adminPort: number, target: string): Promise<Answer> {
  return call(adminPort, { method: 'POST', target, host: 'localhost' })
}

async function drain(adminPort: number, origin: Origin, as: 'on' | 'off'): Promise<void> {
  const answer = await post(adminPort, `/endpoints?service=site&endpoint=${encodeURIComponent(origin.url)}&drain=${as}`)
  expect([answer.status, answer.text]).toEqual([
    200,
    `${JSON.stringify({ service: 'site', endpoint: origin.url, drain: as })}\n`,
  ])
}

/** Who answers: 16 requests on connections of all workers. */
async function answering(port: number): Promise<Set<string>> {
  const answers = await Promise.all(Array.from({ length: 16 }, () => call(port)))
  return new Set(answers.map(({ status, text }) => (status === 200 ? text : String(status))))
}

const both = new Set(['a', 'b'])
const onlyB = new Set(['b'])

interface Status {
  readonly services: readonly { readonly name: string; readonly endpoints: readonly object[] }[]
  readonly drained: readonly object[]
}

test('no new request goes there, those in flight end as they would, and connections that carry nothing close', async () => {
  const gateway = await startGateway({ config: configured([a.url, b.url]) })
  const series = `tidegate_endpoint_out{service="site",endpoint="${a.url}",reason="drained"}`
  try {
    await eventually('both to answer', () => answering(gateway.port), both)
    expect(await gateway.metric(series)).toBe(0)
    // One that waits for its response, and one whose body is still coming. The others go to b.
    const waiting = await reaching(gateway, a, (connection) => connection.send({ target: '/slow' }))
    const head = 'POST /upload HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 100000\r\n\r\n'
    const uploading = await reaching(gateway, a, (connection) => connection.write(head + 'x'.repeat(70_000)))

    await drain(gateway.adminPort, a, 'on')
    const asked = a.requests.all.length
    for (let i = 0; i < 3; i++) expect(await answering(gateway.port)).toEqual(onlyB)
    // Within less than the 4 s after which any idle connection closes.
    await eventually('idle connections to a to close', () => open, 2, 3500)
    release.resolve()
    expect((await waiting.answer()).text).toBe('slow a')
    await uploading.write('x'.repeat(30_000))
    expect((await uploading.answer()).text).toBe('100000 at a')
    await eventually('all connections to a to close', () => open, 0)
    expect(a.requests.all.length).toBe(asked)
    waiting.destroy()
    uploading.destroy()

    const status = await gateway.status<Status>()
    expect(status.services[0]!.endpoints).toEqual([
      expect.objectContaining({ origin: a.url, out: ['drained'] }),
      expect.objectContaining({ origin: b.url, out: [] }),
    ])
    expect(status.drained).toEqual([{ service: 'site', endpoint: a.url, since: expect.stringMatching(/^20\d\d-/) }])
    expect(await gateway.metric(series)).toBe(1)
    const told = (msg: string) => gateway.log.find((line) => line.msg === msg && line.endpoint === a.url, msg)
    await told('endpoint drained by an operator')

    // With both of them drained no endpoint is left, and the log says why.
    await drain(gateway.adminPort, b, 'on')
    const refused = await call(gateway.port)
    expect([refused.status, refused.json<{ code: string }>().code]).toEqual([503, 'no_endpoint'])
    expect(await gateway.logged(refused)).toMatchObject({ reason: 'all endpoints drained' })
    await drain(gateway.adminPort, b, 'off')
    await drain(gateway.adminPort, a, 'off')
    await eventually('both to answer', () => answering(gateway.port), both)
    await told('endpoint no longer drained')
    expect((await gateway.status<Status>()).drained).toEqual([])

    // Names that are not there get those that are.
    const detail = async (query: string): Promise<unknown> => {
      const answer = await post(gateway.adminPort, `/endpoints?${query}`)
      return [answer.status, answer.json<{ detail: string }>().detail]
    }
    expect(await detail(`service=sites&endpoint=${a.url}&drain=on`)).toEqual([
      404,
      'no service is named "sites"; the services are: site, other',
    ])
    expect(await detail('service=site&endpoint=http://127.0.0.1:1&drain=on')).toEqual([
      404,
      `the service "site" has no endpoint "http://127.0.0.1:1"; its endpoints are: ${a.url}, ${b.url}`,
    ])
    expect(await detail(`service=site&endpoint=${a.url}&drain=yes`)).toEqual([400, 'drain must be on or off'])
    // As a person may spell it.
    const spelt = await post(gateway.adminPort, `/endpoints?service=site&endpoint=${a.url.toUpperCase()}/&drain=on`)
    expect(spelt.json()).toEqual({ service: 'site', endpoint: a.url, drain: 'on' })
    expect(await answering(gateway.port)).toEqual(onlyB)
  } finally {
    await gateway.close()
  }
})

/** A connection whose request is at the endpoint: tried until the balancer takes it. */
async function reaching(gateway: Gateway, origin: Origin, send: (connection: Connection) => Promise<unknown>) {
  for (;;) {
    const connection = await Connection.open(gateway.port)
    const before = [a, b].map((one) => one.requests.all.length)
    await send(connection)
    const reached = () => [a, b].findIndex((one, at) => one.requests.all.length > before[at]!)
    const at = await eventually('the request to reach an endpoint', reached, (seen) => seen >= 0)
    if ([a, b][at] === origin) return connection
    connection.destroy()
  }
}

test('a drain outlives kill -9 of all processes, reloads and a takeover', async (context) => {
  const state = join(temporaryFolder(), 'state')
  const config = configured([a.url, b.url])
  const env = { TIDEGATE_STATE: state }
  const first = await startGateway({ config, env })
  requireProcesses(context, first)
  await drain(first.adminPort, a, 'on')
  const { drained } = await first.status<Status>()
  await killAll(first)

  const second = await startGateway({ config, env })
  const reminded = (gateway: Gateway, count: number) =>
    gateway.log.take(count, ({ msg }) => msg === 'endpoint is still drained by an operator', 'the reminder')
  expect(second.log.all.find(({ msg }) => msg === 'starting')?.state).toMatch(/, 1 drained endpoints$/)
  await reminded(second, 1)
  expect((await second.status<Status>()).drained).toEqual(drained)
  expect(await answering(second.port)).toEqual(onlyB)

  const reload = async (next: object): Promise<void> => {
    writeFileSync(second.configFile, JSON.stringify(next))
    expect((await post(second.adminPort, '/reload')).status).toBe(200)
  }
  await reload(configured([a.url, b.url], { name: 'renamed' }))
  await reminded(second, 2)
  expect(await answering(second.port)).toEqual(onlyB)
  // Also while the service does not have it.
  await reload(configured([b.url]))
  await reload(config)
  expect(await answering(second.port)).toEqual(onlyB)

  const third = await startGateway({
    config,
    args: ['--takeover'],
    env: { ...env, TIDEGATE_PORT: String(second.port) },
  })
  try {
    expect(await second.command.ended).toEqual({ code: 0, signal: null })
    await reminded(third, 1)
    expect((await third.status<Status>()).drained).toEqual(drained)
    expect(await answering(third.port)).toEqual(onlyB)
    await drain(third.adminPort, a, 'off')
    await eventually('both to answer', () => answering(third.port), both)
  } finally {
    await third.close()
  }
})

test('an endpoint that comes and goes at run time is drained whenever it is there', async () => {
  const running = await startPrimaryHere(configured([a.url, b.url]))
  const { primary, port } = running
  try {
    await drain(primary.adminPort, a, 'on')
    expect(await answering(port)).toEqual(onlyB)
    await primary.setEndpoints('site', [b.url])
    await primary.setEndpoints('site', [b.url, a.url])
    expect(await answering(port)).toEqual(onlyB)
    // The drain of an endpoint that is not there can be taken back.
    await primary.setEndpoints('site', [b.url])
    await drain(primary.adminPort, a, 'off')
    await primary.setEndpoints('site', [b.url, a.url])
    await eventually('both to answer', () => answering(port), both)
  } finally {
    await running.close()
  }
})
