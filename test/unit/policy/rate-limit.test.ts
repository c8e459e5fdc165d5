import { beforeEach, describe, expect, it } from 'vitest'
import type { Consumer, LimitPolicy, Route } from '../../../src/config/compile.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { rateLimitHeader, rateLimitPolicyHeader } from '../../../src/downstream/rate-limit-fields.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import type { Rejection } from '../../../src/exchange/outcome.js'
import { createRateLimit } from '../../../src/policy/rate-limit.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { RateTable } from '../../../src/state/rate-table.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'

let segment: Segment
let rateLimit: (exchange: Exchange) => Rejection | null
let nowUs: number

function begin(keys = 1000): void {
  segment = openSegment(
    SECTIONS,
    { workers: 1, rateLimitKeys: keys, services: 1, endpoints: 1, routes: 1 },
    { path: null, isolation: 'thread' },
  )
  const check = createRateLimit(new RateTable(segment, 0), segment, [])
  rateLimit = (exchange) => check(exchange.route!)?.(exchange) ?? null
  nowUs = segment.nowUs()
}
beforeEach(() => begin())

/** Of a bucket: 10 in a second, and 2 at once, unless it says otherwise. */
interface Numbers {
  quantity?: number
  windowSeconds?: number
  burst?: number
}

function policy({
  quantity = 10,
  windowSeconds = 1,
  burst = 2,
  ...over
}: Partial<LimitPolicy> & Numbers = {}): LimitPolicy {
  return {
    name: 'limit',
    by: [{ kind: 'consumer' }],
    measure: { kind: 'bucket', quantity, windowSeconds, burst },
    tiers: [],
    cost: 1,
    costByMethod: null,
    on: 'request',
    mode: 'enforce',
    onFull: 'allow',
    headers: false,
    ...over,
  }
}

let routes = 0
function route(...limits: LimitPolicy[]): Route {
  return { name: `route-${routes}`, index: routes++, auth: [], limits } as unknown as Route
}

interface Request {
  method?: string
  consumer?: string
  address?: string
  headers?: string[]
  body?: Buffer
  watched?: boolean
}

function ask(on: Route, request: Request = {}) {
  const { method = 'GET', consumer, address = '192.0.2.1', headers = [], body, watched = false } = request
  const exchange = new Exchange(new MemoryDownstream(), nowUs, method, '/', undefined, Fields.of(headers))
  exchange.route = on
  exchange.consumer = consumer === undefined ? null : ({ name: consumer } as Consumer)
  exchange.clientAddress = address
  exchange.body = body ?? null
  if (watched) exchange.downstream.watch()
  return { exchange, rejection: rateLimit(exchange) }
}

const passes = (on: Route, request: Request = {}): boolean => ask(on, request).rejection === null
const count = (times: number, pass: () => boolean): number => Array.from({ length: times }, pass).filter(Boolean).length

it('lets a route without limits through, and leaves nothing to say', () => {
  const { exchange, rejection } = ask(route())
  expect(rejection).toBeNull()
  expect(exchange.limit).toBeNull()
})

describe('keys', () => {
  it.each<[string, LimitPolicy['by'], Request, Request]>([
    ['consumer', [{ kind: 'consumer' }], { consumer: 'a' }, { consumer: 'b' }],
    ['consumer, or the lack of one', [{ kind: 'consumer' }], {}, { consumer: 'a' }],
    ['address', [{ kind: 'address' }], { address: '192.0.2.1' }, { address: '192.0.2.2' }],
    ['network', [{ kind: 'address' }], { address: '2001:db8::1' }, { address: '2001:db8:0:1::1' }],
    ['header', [{ kind: 'header', header: 'x-key' }], { headers: ['x-key', 'a'] }, { headers: ['x-key', 'b'] }],
    ['header, or the lack of it', [{ kind: 'header', header: 'x-key' }], {}, { headers: ['x-key', 'b'] }],
    [
      'combination',
      [{ kind: 'consumer' }, { kind: 'header', header: 'x-key' }],
      { consumer: 'a', headers: ['x-key', 'bc'] },
      { consumer: 'ab', headers: ['x-key', 'c'] },
    ],
  ])('gives each %s a bucket of its own', (_, by, one, other) => {
    const on = route(policy({ by }))
    expect(count(5, () => passes(on, one))).toBe(2)
    expect(count(5, () => passes(on, other))).toBe(2)
    expect(passes(on, one)).toBe(false)
  })

  it('gives all addresses of a /64 one bucket, and an IPv4 client one however it connects', () => {
    const on = route(policy({ by: [{ kind: 'address' }] }))
    expect(count(1, () => passes(on, { address: '2001:db8::1' }))).toBe(1)
    expect(count(5, () => passes(on, { address: '2001:db8::ffff:2' }))).toBe(1)
    expect(count(1, () => passes(on, { address: '192.0.2.1' }))).toBe(1)
    expect(count(5, () => passes(on, { address: '::ffff:192.0.2.1' }))).toBe(1)
  })

  it('shares a named limit between routes, unless the route is part of its key', () => {
    const named = policy({ name: 'named' })
    const apart = policy({ name: 'apart', by: [{ kind: 'consumer' }, { kind: 'route' }] })
    const [one, two] = [route(named), route(named)]
    expect(count(5, () => passes(one)) + count(5, () => passes(two))).toBe(2)
    const [three, four] = [route(apart), route(apart)]
    expect(count(5, () => passes(three)) + count(5, () => passes(four))).toBe(4)
  })

  it('charges a limit that a route names twice once', () => {
    const named = policy({ name: 'named' })
    expect(count(5, () => passes(route(named, named)))).toBe(2)
  })

  it('prepares a route anew when a reload put another in its place', () => {
    const before = route(policy({ name: 'a' }))
    expect(count(5, () => passes(before))).toBe(2)
    const after = { ...before, limits: [policy({ name: 'a', burst: 4 })] }
    expect(count(5, () => passes(after))).toBe(2)
  })
})

describe('costs', () => {
  it('are the policy’s, or the method’s', () => {
    const on = route(
      policy({
        burst: 10,
        cost: 4,
        costByMethod: new Map([
          ['POST', 5],
          ['HEAD', 0],
        ]),
      }),
    )
    expect(passes(on, { method: 'POST' })).toBe(true)
    expect(passes(on)).toBe(true)
    expect(passes(on)).toBe(false)
    expect(count(100, () => passes(on, { method: 'HEAD' }))).toBe(100)
  })
})

describe('several limits', () => {
  it('all admit, or none is charged', () => {
    const wide = policy({ name: 'wide', burst: 10 })
    const on = route(wide, policy({ name: 'narrow', burst: 3, by: [{ kind: 'address' }] }))
    expect(count(20, () => passes(on))).toBe(3)
    expect(count(20, () => passes(route(wide)))).toBe(7)
  })

  it('tell of the one that refused, or of the one with least left', () => {
    const shown = { headers: true }
    const on = route(policy({ name: 'wide', burst: 10, ...shown }), policy({ name: 'narrow', burst: 3, ...shown }))
    expect(ask(on).exchange).toMatchObject({ limit: { name: 'narrow' }, limitRemaining: 2 })
    count(2, () => passes(on))
    const { exchange, rejection } = ask(on)
    expect(rejection).toMatchObject({ code: 'rate_limited', status: 429, reason: 'limit narrow' })
    expect(exchange).toMatchObject({ limit: { name: 'narrow' }, limitRemaining: 0 })
  })

  it('tell of those that show themselves on admitted answers, and of none where none does', () => {
    const narrow = policy({ name: 'narrow', burst: 3 })
    const shown = policy({ name: 'shown', burst: 10, headers: true })
    expect(ask(route(narrow, shown)).exchange).toMatchObject({ limit: { name: 'shown' }, limitRemaining: 9 })
    expect(ask(route(narrow)).exchange.limit).toBeNull()
    count(1, () => passes(route(narrow)))
    expect(ask(route(narrow, shown)).exchange).toMatchObject({ limit: { name: 'narrow' }, limitRemaining: 0 })
  })
})

describe('report', () => {
  it('marks what it would have refused, and admits it', () => {
    const on = route(policy({ mode: 'report' }))
    const marks = Array.from({ length: 4 }, () => ask(on)).map(({ exchange, rejection }) => {
      expect(rejection).toBeNull()
      return exchange.limitReported
    })
    expect(marks).toEqual([false, false, true, true])
  })

  it('does so next to limits that are enforced', () => {
    const on = route(policy({ name: 'report', mode: 'report', burst: 1 }), policy({ name: 'enforce', burst: 3 }))
    const answers = Array.from({ length: 4 }, () => ask(on))
    expect(answers.map(({ rejection }) => rejection?.reason ?? null)).toEqual([null, null, null, 'limit enforce'])
    expect(answers.map(({ exchange }) => exchange.limitReported)).toEqual([false, true, true, true])
  })
})

describe('when there is no room for a key', () => {
  it('does what the policy says', () => {
    begin(20)
    const by = [{ kind: 'header', header: 'x-key' }] as const
    const filling = route(policy({ by, windowSeconds: 3600, onFull: 'deny' }))
    const answers = Array.from({ length: 200 }, (_, i) => ask(filling, { headers: ['x-key', String(i)] }).rejection)
    expect(answers.filter((rejection) => rejection === null)).toHaveLength(26)
    const deny = policy({ name: 'deny', onFull: 'deny', by })
    expect(ask(route(deny)).rejection).toMatchObject({
      code: 'rate_limited',
      reason: 'limit deny: no room for another key',
    })
    expect(ask(route(deny)).exchange.limitRetrySeconds).toBe(1)
    expect(ask(route({ ...deny, mode: 'report' })).rejection).toBeNull()
    const mixed = route(policy({ name: 'allow' }), { ...deny, name: 'deny too' })
    expect(ask(mixed).rejection).toMatchObject({ reason: 'limit deny too: no room for another key' })
  })

  it('counts keys as one where the policy lets it, so that none gets more than its limit', () => {
    begin(20)
    const by = [{ kind: 'header', header: 'x-key' }] as const
    const filling = route(policy({ name: 'filling', by, windowSeconds: 3600, onFull: 'deny' }))
    for (let i = 0; i < 200; i++) passes(filling, { headers: ['x-key', String(i)] })
    const on = route(policy({ by, windowSeconds: 3600 }))
    const passed = Array.from({ length: 200 }, (_, i) => count(3, () => passes(on, { headers: ['x-key', String(i)] })))
    // All of them in the one shared slot that a table of this size has.
    expect(passed.reduce((sum, each) => sum + each)).toBe(2)
  })
})

describe('windows', () => {
  const window = (quantity: number, windowSeconds: number, over: Partial<LimitPolicy> = {}) =>
    policy({ measure: { kind: 'window', quantity, windowSeconds }, ...over })

  it('say truly what is left, when all of it is, and when to come back', () => {
    const on = route(window(3, 60, { headers: true }))
    const said = [0, 10, 20, 30, 59].map((second, i, all) => {
      nowUs += (second - (all[i - 1] ?? 0)) * 1e6
      const { limitRemaining, limitResetSeconds, limitRetrySeconds } = ask(on).exchange
      return [limitRemaining, limitResetSeconds, limitRetrySeconds]
    })
    expect(said.map(([left]) => left)).toEqual([2, 1, 0, 0, 0])
    expect(said.map(([, whole]) => whole)).toEqual([60, 60, 60, 50, 21])
    expect(said.slice(3).map(([, , again]) => again)).toEqual([30, 1])
    nowUs += 1e6
    expect(passes(on)).toBe(true)
    expect(passes(on)).toBe(false)
    const { exchange } = ask(on)
    expect(rateLimitPolicyHeader(exchange.limit!)).toBe('"limit";q=3;w=60')
    expect(rateLimitHeader(exchange)).toBe('"limit";r=0;t=60')
  })

  it('and buckets are charged all or none', () => {
    const on = route(window(100, 60, { name: 'window' }), policy({ name: 'bucket', burst: 3 }))
    expect(count(20, () => passes(on))).toBe(3)
    expect(count(200, () => passes(route(window(100, 60, { name: 'window' }))))).toBe(97)
  })

  it('keep what they have counted when their quantity changes and their groups do not', () => {
    expect(count(20, () => passes(route(window(5, 60))))).toBe(5)
    expect(count(20, () => passes(route(window(8, 60))))).toBe(3)
    expect(count(20, () => passes(route(window(4, 60))))).toBe(0)
    expect(count(20, () => passes(route(window(4, 61))))).toBe(4)
  })
})

describe('quotas', () => {
  it('tell of the end of the period, and say no length of it', () => {
    const quota = policy({
      measure: { kind: 'quota', quantity: 2, period: 'day', timezone: 'Asia/Kolkata' },
      headers: true,
    })
    const left = secondsToMidnight('Asia/Kolkata')
    expect(count(5, () => passes(route(quota)))).toBe(2)
    const { exchange, rejection } = ask(route(quota))
    expect(rejection).toMatchObject({ reason: 'limit limit' })
    expect(rateLimitPolicyHeader(exchange.limit!)).toBe('"limit";q=2')
    expect(Math.abs(exchange.limitRetrySeconds - left)).toBeLessThan(5)
    expect(exchange.limitResetSeconds).toBe(exchange.limitRetrySeconds)
    // More of it, and what was used is.
    const more = policy({ measure: { kind: 'quota', quantity: 3, period: 'day', timezone: 'Asia/Kolkata' } })
    expect(count(5, () => passes(route(more)))).toBe(1)
  })

  /** India has had one offset since 1945: half past five. */
  function secondsToMidnight(_: 'Asia/Kolkata'): number {
    return 86_400 - ((Date.now() / 1000 + 19_800) % 86_400)
  }
})

describe('tiers', () => {
  const tier = (quantity: number) => policy({ burst: quantity })
  const tiered: LimitPolicy = {
    ...tier(1),
    tiers: [
      { consumer: null, group: 'silver', policy: tier(2) },
      { consumer: null, group: 'gold', policy: tier(3) },
      { consumer: 'shop', group: null, policy: tier(5) },
    ],
  }
  const passesAs = (name: string, groups: string[]): number => {
    const consumer = { name, groups } as unknown as Consumer
    const on = route(tiered)
    let passed = 0
    for (let i = 0; i < 9; i++) {
      const exchange = new Exchange(new MemoryDownstream(), nowUs, 'GET', '/', undefined, Fields.of([]))
      exchange.route = on
      exchange.consumer = consumer
      if (rateLimit(exchange) === null) passed++
    }
    return passed
  }

  it('take the one for the name, else the first for a group, else the limit itself', () => {
    expect(passesAs('a', [])).toBe(1)
    expect(passesAs('b', ['bronze', 'gold'])).toBe(3)
    expect(passesAs('c', ['gold', 'silver'])).toBe(2)
    expect(passesAs('shop', ['silver'])).toBe(5)
  })
})

describe('what the answer says', () => {
  it('counts what is left, the seconds until the bucket is full, and those until one more gets in', () => {
    const on = route(policy({ quantity: 6, windowSeconds: 60, burst: 3, headers: true }))
    const said = Array.from({ length: 4 }, () => ask(on).exchange).map((exchange) => [
      exchange.limitRemaining,
      exchange.limitResetSeconds,
      exchange.limitRetrySeconds,
    ])
    expect(said).toEqual([
      [2, 10, 1],
      [1, 20, 1],
      [0, 30, 10],
      [0, 30, 10],
    ])
    nowUs += 9_500_000
    expect(ask(on).exchange).toMatchObject({ limitResetSeconds: 21, limitRetrySeconds: 1 })
    nowUs += 500_000
    expect(passes(on)).toBe(true)
  })

  it('rounds up, and never says less than a second', () => {
    const on = route(policy({ quantity: 1000, windowSeconds: 1, burst: 1 }))
    expect(passes(on)).toBe(true)
    expect(ask(on).exchange).toMatchObject({ limitRetrySeconds: 1, limitResetSeconds: 1 })
  })

  it('sends who asks for more than the bucket holds away until it is full', () => {
    const on = route(
      policy({ quantity: 6, windowSeconds: 60, burst: 3, headers: true, costByMethod: new Map([['PUT', 4]]) }),
    )
    expect(ask(on, { method: 'PUT' }).exchange).toMatchObject({ limitRemaining: 3, limitRetrySeconds: 1 })
    expect(passes(on)).toBe(true)
    expect(ask(on, { method: 'PUT' }).exchange).toMatchObject({ limitRemaining: 2, limitRetrySeconds: 10 })
  })

  it('is written as the draft has it', () => {
    const on = route(policy({ name: 'per "user"', quantity: 100, windowSeconds: 60, burst: 50, headers: true }))
    const { exchange } = ask(on)
    expect(rateLimitPolicyHeader(exchange.limit!)).toBe('"per \\"user\\"";q=100;w=60')
    expect(rateLimitHeader(exchange)).toBe('"per \\"user\\"";r=49;t=1')
  })

  it('writes names that no header can carry in percent-encoding', () => {
    expect(rateLimitPolicyHeader(policy({ name: 'größe\n\ud800' }))).toBe('"gr%C3%B6%C3%9Fe%0A%EF%BF%BD";q=10;w=1')
  })
})

it('takes the time anew for a request that has waited, for its body or for a thread', () => {
  const on = route(policy({ quantity: 1, windowSeconds: 3600, burst: 1 }))
  nowUs = segment.nowUs() - 3_600_000_000
  expect(passes(on, { watched: true })).toBe(true)
  nowUs = segment.nowUs()
  expect(passes(on, { watched: true })).toBe(false)
})
