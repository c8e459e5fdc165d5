// What may happen to a gateway that serves: each under a steady stream of requests that are all accounted for. How long
// and how often is for the tests to say: a short form in e2e, the long one in chaos.
import { renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { expect, type TestContext } from 'vitest'
import { type Gateway, startGateway, temporaryFolder } from './gateway.js'
import { type Origin, startEcho } from './origins.js'
import { call } from './raw-client.js'
import { requireProcesses } from './requirements.js'
import { type Account, Traffic, type TrafficOptions } from './traffic.js'
import { eventually } from './waiting.js'

const RATE = 100
const BURST = 50

const STEADY: Omit<TrafficOptions, 'perSecond'> = { kept: 40, freshShare: 0.3, paths: ['/', '/limited', '/'] }

interface Scene {
  readonly gateway: Gateway
  readonly origin: Origin
  readonly config: object
  write(config: object | string): void
}

const configOf = (origin: Origin, more: object = {}) => ({
  services: { site: { endpoints: [origin.url], breaker: {} }, held: { endpoints: [origin.url], breaker: {} } },
  limits: { tight: { by: 'route', rate: `${RATE}/s`, burst: BURST }, quota: { by: 'route', rate: '300/d' } },
  routes: [
    { name: 'limited', match: { path: '/limited' }, service: 'site', auth: 'none', limits: ['tight'] },
    { name: 'quota', match: { path: '/quota' }, service: 'site', auth: 'none', limits: ['quota'] },
    { name: 'all', match: { path: '/' }, service: 'site', auth: 'none' },
  ],
  ...more,
})

async function scene(
  context: TestContext,
  env: Record<string, string>,
  workers: 'processes' | 'any',
  run: (scene: Scene) => Promise<void>,
): Promise<void> {
  const origin = await startEcho()
  const file = join(temporaryFolder(), 'tidegate.yaml')
  const write = (next: object | string): void => {
    writeFileSync(`${file}.next`, typeof next === 'string' ? next : JSON.stringify(next))
    renameSync(`${file}.next`, file)
  }
  const config = configOf(origin)
  write(config)
  const gateway = await startGateway({ config, losesWorkers: true, env: { TIDEGATE_CONFIG: file, ...env } })
  try {
    if (workers === 'processes') requireProcesses(context, gateway)
    await run({ gateway, origin, config, write })
  } finally {
    if (gateway.command.child.exitCode === null && gateway.command.child.signalCode === null) await gateway.close()
    await origin.close()
  }
}

/** sent = answered + refused + failed, and the origin has seen just those that were answered. */
function accountFor(traffic: Traffic, origin: Origin, failed: 'none' | RegExp): Account {
  const { total } = traffic
  const failures = Object.values(total.failed).reduce((sum, count) => sum + count, 0)
  expect(total.sent).toBe(total.answered + total.refused + failures)
  if (failed === 'none') expect(total.failed).toEqual({})
  else expect(Object.keys(total.failed).filter((reason) => !failed.test(reason))).toEqual([])
  const seen = new Map<string, number>()
  for (const { url } of origin.requests.all) seen.set(url, (seen.get(url) ?? 0) + 1)
  expect(traffic.answeredTargets.filter((target) => seen.get(target) !== 1)).toEqual([])
  expect(traffic.refusedTargets.filter((target) => seen.has(target))).toEqual([])
  return total
}

/** What one limiter that nothing happens to would have let through, as limited-run.ts has it. */
function expectOneLimiter({ answered, firstSentMs, lastAnsweredMs, quietMs, lastRefusedMs }: Account): void {
  const seconds = (lastAnsweredMs - firstSentMs) / 1000
  const quietSeconds = (quietMs + Math.max(0, lastAnsweredMs - lastRefusedMs)) / 1000
  expect(answered).toBeLessThanOrEqual(RATE * seconds + BURST)
  expect(answered).toBeGreaterThanOrEqual(RATE * (seconds - quietSeconds))
}

function tell(what: string, { sent, answered, refused, failed }: Account, seconds: number): void {
  console.log(
    `${what}: ${sent} sent (${Math.round(sent / seconds)}/s), ${answered} answered, ${refused} refused, failed ${JSON.stringify(failed)}`,
  )
}

/** Until more than so many requests in all have been answered. */
const answers = (traffic: Traffic, count: number): Promise<number> =>
  eventually(
    `more than ${count} responses`,
    () => traffic.total.answered,
    (answered) => answered > count,
  )

const quotaSpent = (traffic: Traffic): Promise<number> =>
  eventually(
    'requests above the quota',
    () => traffic.of('/quota').refused,
    (count) => count > 50,
    20_000,
  )

/** Reloads, every other one of a configuration that is not sound. */
export function reloads(context: TestContext, times: number, seconds: number, perSecond: number): Promise<void> {
  return scene(context, {}, 'any', async ({ gateway, origin, write }) => {
    const startedMs = performance.now()
    const traffic = new Traffic(gateway.port, { ...STEADY, perSecond })
    for (let n = 0; n < times; n++) {
      await pause((seconds * 1000) / times)
      const broken = n % 2 === 1
      const extra = { endpoints: [origin.url], timeouts: { total: `${n + 1}s` } }
      const next = configOf(origin)
      if (broken)
        write(n % 4 === 1 ? 'services: [' : { ...next, routes: [{ match: {}, service: 'nowhere', auth: 'none' }] })
      else {
        // Another service, other indexes, and now and then another client for the same endpoint.
        const site = { endpoints: [origin.url], breaker: {}, timeouts: { connect: n % 8 === 0 ? '2s' : '3s' } }
        write({
          ...next,
          services: { [`s${n}`]: extra, ...next.services, site },
          trustedProxies: n % 3 === 0 ? ['10.0.0.0/8'] : [],
        })
      }
      if (n % 3 === 0) gateway.signal('SIGHUP')
      const answer = await call(gateway.adminPort, { method: 'POST', target: '/reload', host: 'localhost' })
      expect(answer.status).toBe(broken ? 422 : 200)
    }
    await traffic.stop()
    tell('reloads', accountFor(traffic, origin, 'none'), (performance.now() - startedMs) / 1000)
    expectOneLimiter(traffic.of('/limited'))
    const { config } = await gateway.status<{ config: { generation: number } }>()
    expect(config.generation).toBe(1 + Math.ceil(times / 2))
  })
}

/** All workers are replaced, again and again. */
export function rollingRestarts(context: TestContext, times: number, perSecond: number): Promise<void> {
  return scene(context, {}, 'processes', async ({ gateway, origin }) => {
    const pids = async () => (await gateway.status()).workers.map(({ pid }) => pid)
    const startedMs = performance.now()
    const traffic = new Traffic(gateway.port, { ...STEADY, perSecond })
    for (let n = 1; n <= times; n++) {
      await answers(traffic, (n * perSecond) / 10)
      const before = await pids()
      gateway.signal('SIGUSR2')
      await gateway.log.take(n, ({ msg }) => msg === 'all workers were restarted', 'the end of it', 40_000)
      expect((await pids()).filter((pid) => before.includes(pid))).toEqual([])
    }
    const answered = traffic.total.answered
    await answers(traffic, answered + perSecond / 10)
    await traffic.stop()
    tell('rolling restarts', accountFor(traffic, origin, 'none'), (performance.now() - startedMs) / 1000)
    expectOneLimiter(traffic.of('/limited'))
    expect(gateway.log.all.filter(({ level }) => level >= 50)).toEqual([])
  })
}

/** kill -9 of a worker: what was on its connections fails, and nothing else. */
export function killedWorker(context: TestContext, times: number, perSecond: number): Promise<void> {
  return scene(context, {}, 'processes', async ({ gateway, origin }) => {
    const startedMs = performance.now()
    const traffic = new Traffic(gateway.port, { ...STEADY, perSecond })
    let connections = 0
    for (let n = 1; n <= times; n++) {
      const answered = traffic.total.answered
      await answers(traffic, answered + perSecond / 10)
      const dying = (await gateway.status()).workers[n % 2]!
      connections += dying.connections
      process.kill(dying.pid, 'SIGKILL')
      await gateway.log.take(2 + n, ({ msg }) => msg === 'worker listens', 'its successor')
    }
    const answered = traffic.total.answered
    await answers(traffic, answered + perSecond / 10)
    await traffic.stop()
    // Nobody is refused, and nobody gets half a page or another's.
    const total = accountFor(
      traffic,
      origin,
      /^(ECONNRESET while it waited|closed without an answer|cut in the middle of an answer)$/,
    )
    tell('killed workers', total, (performance.now() - startedMs) / 1000)
    const failures = Object.values(total.failed).reduce((sum, count) => sum + count, 0)
    // Those on fresh connections that came since the page was read are not in it.
    expect(failures).toBeLessThanOrEqual(connections + times * 5)
    expectOneLimiter(traffic.of('/limited'))
  })
}

/** Workers that have more memory than they may: each is replaced while it serves. */
export function passedCeilings(context: TestContext, times: number, perSecond: number): Promise<void> {
  // Any worker has as much.
  return scene(context, { TIDEGATE_WORKER_MEMORY_MAX: '1MiB' }, 'processes', async ({ gateway, origin }) => {
    const startedMs = performance.now()
    const traffic = new Traffic(gateway.port, { ...STEADY, perSecond })
    await gateway.log.take(times, ({ msg }) => msg === 'worker passes its memory ceiling', 'the ceiling', 40_000)
    await gateway.log.take(times, ({ msg }) => msg === 'worker left', 'who passed it', 40_000)
    await traffic.stop()
    tell('passed ceilings', accountFor(traffic, origin, 'none'), (performance.now() - startedMs) / 1000)
    expectOneLimiter(traffic.of('/limited'))
  })
}

/**
 * kill -9 of the primary, and a start right behind it: its workers finish what they have, and not one request more
 * passes than the quota.
 */
export function killedPrimary(context: TestContext, perSecond: number): Promise<void> {
  const state = join(temporaryFolder(), 'state')
  return scene(context, { TIDEGATE_STATE: state }, 'processes', async ({ gateway, origin, config }) => {
    const startedMs = performance.now()
    const paths = ['/', '/quota']
    const traffic = new Traffic(gateway.port, { ...STEADY, paths, perSecond })
    await eventually(
      'responses within the quota',
      () => traffic.of('/quota').answered,
      (count) => count > 100,
    )
    process.kill(gateway.command.child.pid!, 'SIGKILL')
    const second = await startGateway({
      config,
      env: { TIDEGATE_STATE: state, TIDEGATE_PORT: String(gateway.port) },
    })
    try {
      await quotaSpent(traffic)
      await gateway.command.ended
      await traffic.stop()
      // Between the one socket and the other nobody listens.
      const total = accountFor(traffic, origin, /^(ECONNREFUSED while connecting|not connected in time)$/)
      tell('killed primary', total, (performance.now() - startedMs) / 1000)
      // A quota of a day fills up by one every five minutes.
      expect(traffic.of('/quota').answered).toBeGreaterThanOrEqual(300)
      expect(traffic.of('/quota').answered).toBeLessThanOrEqual(301)
    } finally {
      await second.close()
    }
  })
}

/** Another gateway takes over, again and again: not a request fails, and quotas and breakers are as they were. */
export function takeovers(context: TestContext, times: number, perSecond: number): Promise<void> {
  const state = join(temporaryFolder(), 'state')
  return scene(context, { TIDEGATE_STATE: state }, 'processes', async ({ gateway, origin, config }) => {
    const startedMs = performance.now()
    const hold = '/breakers?service=held&hold=open'
    expect((await call(gateway.adminPort, { method: 'POST', target: hold, host: 'localhost' })).status).toBe(200)
    const traffic = new Traffic(gateway.port, { ...STEADY, paths: ['/', '/limited', '/quota'], perSecond })
    let current = gateway
    try {
      for (let n = 1; n <= times; n++) {
        const answered = traffic.total.answered
        await answers(traffic, answered + perSecond / 10)
        const former = current
        current = await startGateway({
          config,
          args: ['--takeover'],
          env: {
            TIDEGATE_STATE: state,
            TIDEGATE_PORT: String(gateway.port),
            TIDEGATE_ADMIN_PORT: String(gateway.adminPort),
          },
        })
        expect(await former.command.ended).toEqual({ code: 0, signal: null })
        const { breakers } = await current.status<{ breakers: { service: string; held: string | null }[] }>()
        expect(breakers.find(({ service }) => service === 'held')).toMatchObject({ held: 'open' })
      }
      await quotaSpent(traffic)
      await traffic.stop()
      tell('takeovers', accountFor(traffic, origin, 'none'), (performance.now() - startedMs) / 1000)
      expectOneLimiter(traffic.of('/limited'))
      expect(traffic.of('/quota').answered).toBeGreaterThanOrEqual(300)
      expect(traffic.of('/quota').answered).toBeLessThanOrEqual(301)
    } finally {
      if (current !== gateway) await current.close()
    }
  })
}

/** SIGTERM: whoever is let in is answered, and the others are told at once that nobody is there. */
export function stopped(context: TestContext, perSecond: number): Promise<void> {
  return scene(context, {}, 'processes', async ({ gateway, origin }) => {
    const startedMs = performance.now()
    const traffic = new Traffic(gateway.port, { ...STEADY, perSecond })
    await answers(traffic, 300)
    gateway.signal('SIGTERM')
    expect(await gateway.command.ended).toEqual({ code: 0, signal: null })
    await traffic.stop()
    tell(
      'stopped',
      accountFor(traffic, origin, /^(ECONNREFUSED while connecting)$/),
      (performance.now() - startedMs) / 1000,
    )
    expectOneLimiter(traffic.of('/limited'))
  })
}
