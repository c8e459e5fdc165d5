// What limits and breakers know outlives the gateway: the next start finds it as it was, less the time that passed, or
// says in one line why it begins anew. The file's rules one by one are in test/unit/state.
import { execFileSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { closeSync, openSync, readFileSync, statSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, killAll, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, type RawExchange, startScripted } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireStateFile, requireTool } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

const SOON_MS = 1500

let origin: Origin
let failing = true
/** When /soon was asked. */
let askedAt: number[] = []

beforeAll(async () => {
  const answer = (exchange: RawExchange) => exchange.answer(failing ? 503 : 200, {}, 'from the service')
  origin = await startScripted({
    '/soon': (exchange) => {
      askedAt.push(Date.now())
      return answer(exchange)
    },
    '/later': answer,
  })
})

afterAll(() => origin.close())

function start(state: string, env: Readonly<Record<string, string>> = {}): Promise<Gateway> {
  const service = (openFor: string) => ({
    endpoints: [origin.url],
    breaker: { minRequests: 4, failureRatio: 0.5, openFor, maxOpenFor: '60s', probes: 1, ramp: '0s' },
  })
  const route = (name: string, rest: object = {}) => ({
    match: { path: `/${name}` },
    service: name,
    auth: 'none',
    ...rest,
  })
  return startGateway({
    env: { TIDEGATE_STATE: state, ...env },
    config: {
      services: { later: service('60s'), soon: service(`${SOON_MS}ms`), held: service('60s'), quota: service('60s') },
      routes: [
        route('later'),
        route('soon'),
        route('held'),
        route('quota', { limits: [{ by: 'route', rate: '1000/d', name: 'daily' }], accessLog: false }),
      ],
    },
  })
}

const newState = (): string => join(temporaryFolder(), 'gateway.state')

/** How many of `count` requests the quota admits, asked on connections of both workers. */
async function admitted(gateway: Gateway, count: number): Promise<number> {
  let left = count
  let passed = 0
  const client = async () => {
    const connection = await Connection.open(gateway.port)
    while (left-- > 0) {
      const { status } = await connection.exchange({ target: '/quota' })
      if (status === 200) passed++
      else expect(status).toBe(429)
    }
    connection.destroy()
  }
  await Promise.all(Array.from({ length: 8 }, client))
  return passed
}

/** Resolves with the time that the change was logged. */
async function open(gateway: Gateway, service: string): Promise<number> {
  for (let i = 0; i < 4; i++)
    expect((await call(gateway.port, { target: `/${service}` })).text).toBe('from the service')
  const opens = (line: { service?: unknown; to?: unknown }) => line.service === service && line.to === 'open'
  return (await gateway.log.find(opens, `${service} open`)).time
}

async function hold(gateway: Gateway, as: string): Promise<void> {
  const target = `/breakers?service=held&hold=${as}`
  expect((await call(gateway.adminPort, { method: 'POST', target, host: 'localhost' })).status).toBe(200)
}

const code = async (gateway: Gateway, target: string): Promise<string | undefined> => {
  const answer = await call(gateway.port, { target })
  return answer.status === 200 ? undefined : answer.json<{ code: string }>().code
}

const whatBecameOf = (gateway: Gateway): unknown => gateway.log.all.find((line) => line.msg === 'starting')?.state

describe.each([
  { how: 'kill -9 of all its processes', end: killAll },
  { how: 'SIGTERM', end: (gateway: Gateway) => gateway.close() },
])('after $how the next start', ({ end }) => {
  test('admits what is left of a quota, keeps breakers open for the rest of their time, and held ones held', async (context) => {
    failing = true
    askedAt = []
    const state = newState()
    const before = await start(state)
    await requireStateFile(context, before)
    expect(await admitted(before, 600)).toBe(600)
    await hold(before, 'open')
    const laterBeganAt = Date.now()
    const laterOpenedAt = await open(before, 'later')
    const soonOpenedAt = await open(before, 'soon')
    await end(before)

    const gateway = await start(state)
    try {
      const startedAt = Date.now()
      expect(whatBecameOf(gateway)).toMatch(/^state restored from .+: 1 rate limit keys, 4 breakers$/)
      const asked = origin.requests.all.length
      const refused = await call(gateway.port, { target: '/later' })
      expect(refused.json()).toMatchObject({ code: 'breaker_open' })
      const retryAfter = Number(refused.one('retry-after'))
      expect(retryAfter).toBeLessThanOrEqual(Math.ceil((laterOpenedAt + 60_001 - startedAt) / 1000))
      expect(retryAfter).toBeGreaterThanOrEqual(Math.floor((laterBeganAt + 60_000 - Date.now()) / 1000))
      expect(await code(gateway, '/held')).toBe('breaker_open')
      expect(origin.requests.all.length).toBe(asked)

      // Due when it was due, not that long after the start.
      failing = false
      const connection = await Connection.open(gateway.port)
      const soon = async () => (await connection.exchange({ target: '/soon' })).status
      await eventually('the breaker to let a request pass', soon, 200)
      connection.destroy()
      expect(askedAt.at(-1)! - soonOpenedAt).toBeGreaterThanOrEqual(SOON_MS - 5)
      expect(askedAt.at(-1)! - startedAt).toBeLessThan(SOON_MS)

      const still = (line: { msg: string }) => line.msg === 'breaker is still held by an operator'
      expect(await gateway.log.find(still, 'the reminder')).toMatchObject({ service: 'held', held: 'open' })
      await hold(gateway, 'none')
      expect(await code(gateway, '/held')).toBeUndefined()
      expect(await admitted(gateway, 500)).toBe(400)
    } finally {
      await gateway.close()
    }
  })
})

test('a wall clock that is a minute behind at the next start changes nothing', async (context) => {
  requireTool(context, 'faketime')
  failing = true
  const state = newState()
  const before = await start(state)
  await requireStateFile(context, before)
  expect(await admitted(before, 600)).toBe(600)
  await open(before, 'later')
  await before.close()

  const preload = execFileSync('faketime', ['-f', '-60s', 'printenv', 'LD_PRELOAD'], { encoding: 'utf8' }).trim()
  const gateway = await start(state, { LD_PRELOAD: preload, FAKETIME: '-60s', FAKETIME_DONT_FAKE_MONOTONIC: '1' })
  try {
    // By its own clock it starts before the one that went before.
    expect(gateway.log.all[0]!.time).toBeLessThan(before.log.all[0]!.time)
    expect(await admitted(gateway, 500)).toBe(400)
    expect(await code(gateway, '/later')).toBe('breaker_open')
    const { breakers } = await gateway.status<{ breakers: { service: string; state: string }[] }>()
    expect(breakers.find(({ service }) => service === 'later')?.state).toBe('open')
  } finally {
    await gateway.close()
  }
})

test('a state that cannot be used is discarded, with a line that says why', async (context) => {
  const state = newState()
  const write = (at: number, bytes: Uint8Array): void => {
    const file = openSync(state, 'r+')
    // Also in the copy of the header.
    for (const page of [0, 4096]) writeSync(file, bytes, 0, bytes.length, page + at)
    closeSync(file)
  }
  const damages = [
    { why: /^fresh state in / },
    { damage: () => write(48, Buffer.from('torn')), why: /discarded: its header is damaged$/ },
    { damage: () => write(8, Buffer.from([99])), why: /discarded: written with layout 99, this is \d+$/ },
  ]
  for (const { damage, why } of damages) {
    damage?.()
    const gateway = await start(state)
    try {
      await requireStateFile(context, gateway)
      expect(whatBecameOf(gateway)).toMatch(why)
      expect(await admitted(gateway, 10)).toBe(10)
      const { rateTable } = await gateway.status<{ rateTable: { decisions: number } }>()
      expect(rateTable.decisions).toBe(10)
    } finally {
      await gateway.close()
    }
  }
})

test('damage in the file costs what it hits: the next start says so, and keeps the rest', async (context) => {
  const state = newState()
  const before = await start(state)
  await requireStateFile(context, before)
  expect(await admitted(before, 600)).toBe(600)
  await killAll(before)

  const bytes = readFileSync(state)
  // The header, all breakers, all drains, who had which index, and of the buckets every eighth page that holds none.
  const BREAKERS = 2
  const DRAINS = BREAKERS + 16
  const OWNERS = DRAINS + 32
  const BUCKETS = OWNERS + 32
  const pages = bytes.length / 4096
  const isEmpty = (page: number): boolean => bytes.subarray(page * 4096, page * 4096 + 4096).every((byte) => byte === 0)
  const hit = Array.from({ length: pages - 1 }, (_, page) => page).filter(
    (page) => page !== 1 && (page < BUCKETS || (page % 8 === 0 && isEmpty(page))),
  )
  for (const page of hit) randomFillSync(bytes, page * 4096, 4096)
  writeFileSync(state, bytes)
  const gateway = await start(state)
  try {
    expect(whatBecameOf(gateway)).toMatch(
      /^state restored from .+: 1 rate limit keys \(\d+ damaged ones dropped\), 0 breakers \(\d+ damaged ones dropped\), 0 drained endpoints \(\d+ damaged ones dropped\); its header was damaged$/,
    )
    expect(await admitted(gateway, 500)).toBe(400)
    const { breakers } = await gateway.status<{ breakers: { service: string }[] }>()
    expect(breakers.map(({ service }) => service).sort()).toEqual(['held', 'later', 'quota', 'soon'])
  } finally {
    await gateway.close()
  }
})

test('a file that is cut short while it is in use, under load, costs what was in it and no worker', async (context) => {
  failing = false
  const state = newState()
  const gateway = await start(state, { TIDEGATE_WORKERS: '4' })
  try {
    await requireStateFile(context, gateway)
    const drain = `/endpoints?service=later&endpoint=${origin.url}&drain=on`
    expect((await call(gateway.adminPort, { method: 'POST', target: drain, host: 'localhost' })).status).toBe(200)
    const { size } = statSync(state)
    let going = true
    const load = Array.from({ length: 16 }, async () => {
      const connection = await Connection.open(gateway.port)
      while (going) expect([200, 429]).toContain((await connection.exchange({ target: '/quota' })).status)
      connection.destroy()
    })
    const told = (line: { msg: string }): boolean => line.msg.startsWith('the state file was cut short')
    for (const [i, rest] of [0, size / 2, 4096].entries()) {
      truncateSync(state, rest)
      await gateway.log.take(i + 1, told, 'what became of the file')
      expect(statSync(state).size).toBe(size)
    }
    going = false
    await Promise.all(load)

    // What all workers know is one thing again, and is kept.
    truncateSync(state, 0)
    await gateway.log.take(4, told, 'what became of the file')
    expect(await admitted(gateway, 700)).toBe(700)
    await hold(gateway, 'open')
    expect(await code(gateway, '/held')).toBe('breaker_open')
    expect(gateway.log.all.filter(({ msg }) => msg === 'worker listens')).toHaveLength(4)
  } finally {
    await gateway.close()
  }
  const next = await start(state)
  try {
    expect(whatBecameOf(next)).toMatch(/^state restored from .+: 1 rate limit keys, 4 breakers, 1 drained endpoints$/)
    // What an operator has drained, the primary knows without the file.
    expect(await code(next, '/later')).toBe('no_endpoint')
    expect(await admitted(next, 400)).toBe(300)
    expect(await code(next, '/held')).toBe('breaker_open')
  } finally {
    await next.close()
  }
})
