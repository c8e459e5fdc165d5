// The endpoints of a service change while it is called: by a message from the primary to real workers, and without
// another generation. Each of the two clients of a service, and each kind of worker that there is
// (TIDEGATE_ISOLATION), is to do the same.
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { fillBacklog } from '../support/full-backlog.js'
import { temporaryFolder } from '../support/gateway.js'
import { type Origin, type RawExchange, refusingPort, sha256, startEcho, startScripted } from '../support/origins.js'
import { type RunningPrimary, startPrimaryHere } from '../support/primary.js'
import { Connection, call } from '../support/raw-client.js'

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const close of cleanup.splice(0).reverse()) await close()
})

async function echo(name: string, path?: string): Promise<Origin> {
  const origin = await startEcho({ headers: { 'x-origin': name }, ...(path !== undefined && { path }) })
  cleanup.push(() => origin.close())
  return origin
}

const site = (endpoints: readonly unknown[], more: object = {}): object => ({
  services: { site: { endpoints, ...more } },
  routes: [{ name: 'all', match: { path: '/' }, service: 'site', auth: 'none' }],
})

async function start(config: object, env: Record<string, string> = {}): Promise<RunningPrimary> {
  const running = await startPrimaryHere(config, { TIDEGATE_WORKERS: '2', ...env })
  cleanup.push(() => running.close())
  return running
}

const originsOf = async (running: RunningPrimary): Promise<string[]> =>
  (await running.status()).services.find(({ name }) => name === 'site')!.endpoints.map(({ origin }) => origin)

/** Asks until somebody who is asked for answers: each worker has a round of its own. */
async function answeredBy(running: RunningPrimary, count = 16): Promise<Set<string>> {
  const answers = await Promise.all(Array.from({ length: count }, () => call(running.port)))
  expect(answers.map(({ status }) => status)).toEqual(Array(count).fill(200))
  return new Set(answers.map((answer) => answer.one('x-origin')!))
}

/** Clients that ask as soon as they are answered, and note during which changes each request was on its way. */
class Clients {
  stopping = false
  /** The change that was last asked for, and the last one that was acknowledged. */
  asked = 0
  acknowledged = 0
  readonly answers: { readonly from: number; readonly to: number; readonly origin: string; readonly status: number }[] =
    []
  private readonly running: Promise<unknown>

  constructor(port: number, count: number) {
    this.running = Promise.all(Array.from({ length: count }, (_, i) => this.ask(port, i)))
  }

  private async ask(port: number, i: number): Promise<void> {
    const connection = await Connection.open(port)
    const body = i % 4 === 0 ? 'b'.repeat(20_000) : undefined
    while (!this.stopping) {
      const from = this.acknowledged
      const answer = await connection.exchange(body === undefined ? {} : { method: 'POST', body })
      if (body !== undefined) expect(answer.json<{ bodySha256: string }>().bodySha256).toBe(sha256(body))
      this.answers.push({ from, to: this.asked, origin: answer.one('x-origin')!, status: answer.status })
    }
    connection.destroy()
  }

  /** Resolves when so many more were answered. */
  async answered(count: number): Promise<void> {
    const until = this.answers.length + count
    while (this.answers.length < until) await new Promise((resolve) => setTimeout(resolve, 1))
  }

  async stop(): Promise<void> {
    this.stopping = true
    await this.running
  }
}

describe.each([
  { client: 'lean', changes: 100 },
  { client: 'undici', changes: 40 },
])('with the $client client', ({ client, changes }) => {
  test(`${changes} changes under load: nothing fails, only endpoints of the time are asked, nothing grows`, async () => {
    const origins = [
      await echo('0'),
      await echo('1'),
      await echo('2'),
      await echo('3', join(temporaryFolder(), 'socket')),
    ]
    const urls = origins.map(({ url }) => url)
    // Each set has one that the next one lacks, and lacks one that the next one has.
    const set = (change: number): number[] => [change % 4, (change + 1) % 4]
    const running = await start(
      site(
        set(0).map((i) => urls[i]!),
        { client },
      ),
    )
    const clients = new Clients(running.port, 12)
    const pids = (await running.status()).workers.map(({ pid }) => pid)
    const descriptors = (): number => Math.max(...pids.map((pid) => readdirSync(`/proc/${pid}/fd`).length))
    const memory = async (): Promise<number> =>
      Math.max(...(await running.status()).workers.map(({ memoryBytes }) => memoryBytes))
    let early = 0
    let earlyMemory = 0
    for (let change = 1; change <= changes; change++) {
      clients.asked = change
      await running.primary.setEndpoints(
        'site',
        set(change).map((i) => urls[i]!),
      )
      clients.acknowledged = change
      await clients.answered(5)
      if (change !== changes / 2) continue
      early = descriptors()
      earlyMemory = await memory()
    }
    await clients.answered(100)
    const late = descriptors()
    const lateMemory = await memory()
    await clients.stop()

    const wrong = clients.answers.filter(({ from, to, origin, status }) => {
      const may = Array.from({ length: to - from + 1 }, (_, i) => set(from + i)).flat()
      return status !== 200 || !may.includes(Number(origin))
    })
    expect(wrong).toEqual([])
    expect(clients.answers.length).toBeGreaterThan(changes * 5)
    expect(new Set(clients.answers.map(({ origin }) => origin))).toEqual(new Set(['0', '1', '2', '3']))
    const status = await running.status()
    expect(status.config.generation).toBe(1)
    expect(status.workers.map(({ pid }) => pid)).toEqual(pids)
    expect(await originsOf(running)).toEqual(set(changes).map((i) => urls[i]))
    // Connections that end, and some that begin, either way.
    if (running.isolation === 'process') expect(late).toBeLessThanOrEqual(early + 12)
    if (running.isolation === 'process') expect(lateMemory - earlyMemory).toBeLessThan(24 * 2 ** 20)
  })

  test('what an endpoint that is removed has in flight finishes, and then its connections close', async () => {
    const held: RawExchange[] = []
    let onHeld: () => void = () => {}
    const hold = (exchange: RawExchange): Promise<void> => {
      held.push(exchange)
      onHeld()
      return new Promise(() => {})
    }
    const leaving = await startScripted({ '/long': hold, '/upload': hold, '/idle': hold })
    cleanup.push(() => leaving.close())
    const stays = await echo('stays')
    const running = await start(site([leaving.url], { client }), { TIDEGATE_WORKERS: '1' })
    const [long, upload, idle] = await Promise.all(Array.from({ length: 3 }, () => Connection.open(running.port)))
    const begin = async (send: Promise<void>): Promise<RawExchange> => {
      const arrived = new Promise<void>((resolve) => {
        onHeld = resolve
      })
      await Promise.all([send, arrived])
      return held.at(-1)!
    }
    const idleAt = await begin(idle!.send({ target: '/idle' }))
    const longAt = await begin(long!.send({ target: '/long' }))
    await longAt.send('HTTP/1.1 200 OK\r\nx-origin: leaving\r\ntransfer-encoding: chunked\r\n\r\n')
    await longAt.chunk('first ')
    expect((await long!.head()).status).toBe(200)
    const half = 'u'.repeat(200_000)
    const uploadAt = await begin(
      upload!.write(`POST /upload HTTP/1.1\r\nhost: gateway\r\ncontent-length: ${2 * half.length}\r\n\r\n${half}`),
    )
    await idleAt.answer(200, {}, 'done')
    expect((await idle!.answer()).text).toBe('done')

    await running.primary.setEndpoints('site', [stays.url])
    expect(await answeredBy(running)).toEqual(new Set(['stays']))
    expect((await idle!.exchange({})).one('x-origin')).toBe('stays')
    // A later one changes nothing about it.
    await running.primary.setEndpoints('site', [stays.url, `http://127.0.0.1:${await refusingPort()}`])
    await upload!.write(half)
    const body = await uploadAt.body()
    expect(body.bytes.length).toBe(2 * half.length)
    await uploadAt.answer(200, { 'X-Origin': 'leaving' }, 'taken')
    expect((await upload!.answer()).text).toBe('taken')
    await longAt.chunk('and last')
    await longAt.send('0\r\n\r\n')
    expect(String(await long!.chunk())).toBe('first ')
    expect(String(await long!.chunk())).toBe('and last')
    expect(await long!.chunk()).toBeNull()
    await Promise.all([idleAt.closed(), longAt.closed(), uploadAt.closed()])
    expect(leaving.connections).toBe(3)
    for (const connection of [long!, upload!, idle!]) connection.destroy()
  })

  test('requests of an older generation give it up as well', async () => {
    let held: RawExchange | null = null
    const leaving = await startScripted({
      '/held': (exchange) => {
        held = exchange
        return new Promise(() => {})
      },
    })
    cleanup.push(() => leaving.close())
    const stays = await echo('stays')
    const running = await start(site([leaving.url], { client }), { TIDEGATE_WORKERS: '1' })
    const connection = await Connection.open(running.port)
    await connection.send({ target: '/held' })
    await leaving.requests.find(({ url }) => url === '/held', 'the held one')
    running.configure(site([leaving.url], { client, timeouts: { total: '30s' } }))
    expect(await running.primary.reload('admin')).toMatchObject({ ok: true, generation: 2 })
    await running.primary.setEndpoints('site', [stays.url])
    await held!.answer(200, {}, 'held')
    expect((await connection.answer()).text).toBe('held')
    await held!.closed()
    connection.destroy()
  })
})

test('a connection that cannot be made to one that is removed meanwhile costs another attempt at another', async () => {
  const path = join(temporaryFolder(), 'full')
  const backlog = await fillBacklog(path)
  cleanup.push(() => backlog.close())
  const stays = await echo('stays')
  const running = await start(site([`unix:${path}`], { timeouts: { connect: '1s' } }), { TIDEGATE_WORKERS: '1' })
  const answer = call(running.port)
  await expect.poll(() => running.metrics()).toMatch(/^tidegate_requests_in_flight\S* 1$/m)
  await running.primary.setEndpoints('site', [stays.url])
  expect((await answer).one('x-origin')).toBe('stays')
})

test('another weight or zone, at run time or by a reload, keeps the connections', async () => {
  const [a, b] = [await echo('a'), await echo('b')]
  const running = await start(site([a.url, b.url]), { TIDEGATE_WORKERS: '1' })
  const connection = await Connection.open(running.port)
  const both = async (): Promise<void> => {
    const names = new Set<string>()
    // One after the other, so that each endpoint needs no more than one connection.
    while (names.size < 2) names.add((await connection.exchange({})).one('x-origin')!)
  }
  await both()
  await running.primary.setEndpoints('site', [
    { url: a.url, weight: 2 },
    { url: b.url, zone: 'eu-1a' },
  ])
  await both()
  expect(await originsOf(running)).toEqual([a.url, b.url])
  running.configure(site([{ url: a.url, zone: 'eu-1a' }, b.url]))
  expect(await running.primary.reload('admin')).toMatchObject({ ok: true, generation: 2 })
  await both()
  expect([a.connections, b.connections]).toEqual([1, 1])
  connection.destroy()
})

test('no endpoint at all: 503, until there is one again', async () => {
  const one = await echo('one')
  const running = await start(site([one.url]))
  await running.primary.setEndpoints('site', [])
  const answer = await call(running.port)
  expect(answer.status).toBe(503)
  expect(answer.json<{ code: string }>().code).toBe('no_endpoint')
  await running.primary.setEndpoints('site', [one.url])
  expect(await answeredBy(running)).toEqual(new Set(['one']))
})

test('a worker that starts later has the endpoints of now', async ({ skip }) => {
  const [first, second] = [await echo('first'), await echo('second')]
  const running = await start(site([first.url]))
  if (running.isolation === 'thread') return skip('threads cannot be replaced')
  const before = (await running.status()).workers.map(({ pid }) => pid)
  await running.primary.setEndpoints('site', [second.url])
  expect(running.primary.restart()).toBe('')
  // One that is replaced takes note of changes as long as it lives.
  await running.primary.setEndpoints('site', [first.url, second.url])
  await running.primary.setEndpoints('site', [second.url])
  await expect
    .poll(async () => (await running.status()).workers.filter(({ pid }) => before.includes(pid)).length, {
      timeout: 10_000,
    })
    .toBe(0)
  await expect.poll(async () => (await running.status()).ready, { timeout: 10_000 }).toBe(true)
  expect(await answeredBy(running)).toEqual(new Set(['second']))
  await running.primary.setEndpoints('site', [first.url])
  expect(await answeredBy(running)).toEqual(new Set(['first']))
})

test('one that dies is not waited for, and its successor has the endpoints of now', async ({ skip }) => {
  const [first, second] = [await echo('first'), await echo('second')]
  const running = await start(site([first.url]), { TIDEGATE_LOG_LEVEL: 'silent' })
  if (running.isolation === 'thread') return skip('a thread cannot be killed')
  const { workers } = await running.status()
  process.kill(workers[0]!.pid, 'SIGSTOP')
  const changed = running.primary.setEndpoints('site', [second.url])
  const late = new Promise((resolve) => setTimeout(resolve, 100, 'still waits'))
  expect(await Promise.race([changed, late])).toBe('still waits')
  process.kill(workers[0]!.pid, 'SIGKILL')
  await changed
  await expect.poll(async () => (await running.status()).ready, { timeout: 10_000 }).toBe(true)
  expect((await running.status()).workers.map(({ pid }) => pid)).not.toContain(workers[0]!.pid)
  expect(await answeredBy(running)).toEqual(new Set(['second']))
})

test('a reload keeps them, unless the file has another list for the service', async () => {
  const [first, second, third] = [await echo('first'), await echo('second'), await echo('third')]
  const running = await start(site([first.url]))
  await running.primary.setEndpoints('site', [second.url])
  running.configure(site([first.url], { timeouts: { total: '30s' } }))
  expect(await running.primary.reload('admin')).toMatchObject({
    generation: 2,
    changes: ['~ services.site.timeouts.total: 0 → 30000'],
  })
  expect(await answeredBy(running)).toEqual(new Set(['second']))
  expect(await originsOf(running)).toEqual([second.url])
  running.configure(site([third.url]))
  expect(await running.primary.reload('admin')).toMatchObject({ ok: true, generation: 3 })
  expect(await answeredBy(running)).toEqual(new Set(['third']))
  running.configure(site([third.url], { timeouts: { total: '30s' } }))
  expect(await running.primary.reload('admin')).toMatchObject({ ok: true, generation: 4 })
  expect(await originsOf(running)).toEqual([third.url])
})

test('health checks, /status and /metrics follow', async () => {
  const [well, other] = [await echo('well'), await echo('other')]
  let status = 500
  const sick = await startEcho({ status: () => status })
  cleanup.push(() => sick.close())
  const health = { path: '/', interval: '1s', timeout: '1s', healthyAfter: 100, unhealthyAfter: 1 }
  const running = await start(site([well.url], { health }))
  const states = async (): Promise<object> => (await running.status()).services[0]!.endpoints
  const is = (...all: (readonly [Origin, string])[]) =>
    expect
      .poll(states, { timeout: 10_000 })
      .toMatchObject(all.map(([{ url }, state]) => ({ origin: url, health: state })))
  await is([well, 'up'])
  await running.primary.setEndpoints('site', [sick.url, well.url])
  await is([sick, 'down'], [well, 'up'])
  const series = (origin: Origin): string => `tidegate_endpoint_up{service="site",endpoint="${origin.url}"}`
  expect(await running.metrics()).toContain(`${series(sick)} 0\n`)
  expect(await answeredBy(running)).toEqual(new Set(['well']))
  await running.primary.setEndpoints('site', [well.url, other.url])
  await is([well, 'up'], [other, 'up'])
  expect(await running.metrics()).not.toContain(series(sick))
  expect(await running.metrics()).toContain(`${series(other)} 1\n`)
  const asked = sick.requests.all.length
  await running.primary.setEndpoints('site', [other.url])
  await answeredBy(running)
  expect(sick.requests.all.length).toBe(asked)
  // What it was before says nothing of what it is now: from down, up would be a hundred checks away.
  status = 200
  await running.primary.setEndpoints('site', [sick.url, other.url])
  await is([sick, 'up'], [other, 'up'])
})

test('what cannot be is refused, and changes nothing', async () => {
  const one = await echo('one')
  const running = await start(site([one.url]))
  const set = (service: string, ...endpoints: string[]) => running.primary.setEndpoints(service, endpoints)
  await expect(set('sight', one.url)).rejects.toThrow('no service is named "sight"')
  await expect(set('toString', one.url)).rejects.toThrow('no service is named "toString"')
  await expect(set('site', 'unix:///run/o.sock')).rejects.toThrow(
    'service "site": endpoint "unix:///run/o.sock" is not how a Unix socket is written: write unix:/run/o.sock',
  )
  await expect(running.primary.setEndpoints('site', [{ url: one.url, weight: 0 }])).rejects.toThrow(
    `service "site": endpoint "${one.url}": weight must be at least 1`,
  )
  await expect(running.primary.setEndpoints('site', [{ weight: 2 } as never])).rejects.toThrow(
    'service "site": endpoint {"weight":2}: url is missing (a string)',
  )
  await expect(set('site', one.url, `${one.url}/`)).rejects.toThrow(
    `service "site": endpoint "${one.url}" is listed twice`,
  )
  // Room for twice as many as the first configuration has, and for 64 more.
  const many = (count: number, from: number): string[] =>
    Array.from({ length: count }, (_, i) => `http://127.0.0.1:${from + i}`)
  await expect(set('site', ...many(67, 1))).rejects.toThrow(
    'service "site": the endpoints need more room in shared memory than this start made (66): restart',
  )
  expect(await originsOf(running)).toEqual([one.url])
  expect(await answeredBy(running)).toEqual(new Set(['one']))
  // Places are given again once no worker uses them: half of them at a time, for ever others.
  for (let round = 1; round < 20; round++) await set('site', ...many(33, round * 100))
  await expect(set('site', ...many(34, 10_000))).rejects.toThrow(/this start made \(66\)/)
  await set('site', one.url)
  await set('site', ...many(65, 20_000), one.url)
  await set('site', one.url)
  expect(await answeredBy(running)).toEqual(new Set(['one']))
  expect((await running.status()).config.generation).toBe(1)
})
