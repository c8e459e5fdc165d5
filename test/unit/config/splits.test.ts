// Splits and mirrors in the configuration: both spellings, what they compile to, what `tidegate routes` shows, and each
// mistake with its place.
import { describe, expect, it } from 'vitest'
import { listRoutes, routesAsJson } from '../../../src/cli/listings.js'
import { compile } from '../../../src/config/compile.js'
import { type ConfigError, type Loaded, loadConfig } from '../../../src/config/load.js'

const load = (keys: string): Loaded =>
  loadConfig({
    text: {
      origin: 'gw.yaml',
      yaml: `consumers: { ada: { secret: long-enough-secret } }
services: { orders: { endpoints: [http://h:1] }, orders-next: { endpoints: [http://h:2] }, shadow: { endpoints: [http://h:3] } }
routes:
  - { name: r, match: { path: / }, ${keys} }
`,
    },
    env: { TIDEGATE_STATE: 'none' },
  })

const tableOf = (keys: string) => {
  const { config, settings } = load(keys)
  return compile(config, settings)
}

describe('a split', () => {
  it.each(['{ orders: 95, orders-next: 5 }', '[{ service: orders, weight: 95 }, { service: orders-next, weight: 5 }]'])(
    '%s',
    (split) => {
      const { routes, branches } = tableOf(`auth: none, split: ${split}, sticky: 'header:X-Tenant'`)
      expect(routes[0]!.handler).toMatchObject({
        kind: 'split',
        service: null,
        sides: [
          { service: { name: 'orders' }, weight: 95 },
          { service: { name: 'orders-next' }, weight: 5 },
        ],
        sticky: { kind: 'header', name: 'x-tenant' },
      })
      expect(branches).toEqual([
        { kind: 'split', route: 'r', service: 'orders', share: 0.95, slot: 0 },
        { kind: 'split', route: 'r', service: 'orders-next', share: 0.05, slot: 1 },
      ])
    },
  )

  it('in the list a weight is 1 unless it is given, and 0 prepares a canary', () => {
    const { branches } = tableOf(
      'auth: none, split: [{ service: orders }, { service: shadow }, { service: orders-next, weight: 0 }]',
    )
    expect(branches.map(({ share }) => share)).toEqual([0.5, 0.5, 0])
  })

  it('and a mirror show in `tidegate routes`, and no column where there is no mirror', () => {
    const loaded = load('auth: x-m, split: { orders: 95, orders-next: 5 }, sticky: consumer, mirror: shadow')
    expect(JSON.parse(routesAsJson(loaded))).toMatchObject([
      { service: 'orders 95%, orders-next 5%, by consumer', mirror: 'shadow 100%' },
    ])
    expect(listRoutes(loaded, (text) => text)).toMatch(/SERVICE +MIRROR/)
    expect(listRoutes(load('auth: none, service: orders'), (text) => text)).not.toContain('MIRROR')
  })
})

describe('a mirror', () => {
  it.each([
    ['shadow', { share: 1, maxBodyBytes: 65_536 }],
    ['{ service: shadow, share: 0.1 }', { share: 0.1, maxBodyBytes: 65_536 }],
    ['{ service: shadow, maxBody: 1KiB }', { share: 1, maxBodyBytes: 1024 }],
  ])('%s', (mirror, rules) => {
    const { routes, branches } = tableOf(`auth: none, service: orders, mirror: ${mirror}`)
    expect(routes[0]!.mirror).toMatchObject({ ...rules, service: { name: 'shadow' } })
    expect(routes[0]!.strippedFields).toEqual(['x-tidegate-mirror'])
    expect(branches).toEqual([{ kind: 'mirror', route: 'r', service: 'shadow', share: rules.share, slot: 0 }])
  })
})

it.each([
  [
    'split: { orders: 95, orders-nex: 5 }',
    'split.orders-nex: no service is named "orders-nex"; did you mean "orders-next"?',
  ],
  [
    'split: [{ service: orders }, { service: ordres }]',
    'split[1].service: no service is named "ordres"; did you mean "orders"?',
  ],
  ['split: [{ service: orders, wieght: 1 }]', 'split[0].wieght: unknown key; did you mean "weight"?'],
  ['split: { orders: 1 }', 'split: needs two services or more; write service for one'],
  ['split: []', 'split: needs two services or more; write service for one'],
  ['split: { orders: 0, shadow: 0 }', 'split: needs a weight above 0: no service would get requests'],
  ['split: { orders: 1, shadow: -1 }', 'split.shadow: must be at least 0'],
  ['split: { orders: 1, shadow: many }', 'split.shadow: must be a number without %: a share of the sum of all weights'],
  ['split: [{ service: shadow }, { service: shadow }]', 'split[1].service: "shadow" is listed twice'],
  ['split: orders', 'split: must be a map such as { orders: 95, orders-next: 5 }'],
  ['split: { orders: 95%, shadow: 5 }', 'split.orders: must be a number without %: a share of the sum of all weights'],
  ['split: [orders, { service: shadow }]', 'split[0]: must be a map such as { service: orders, weight: 95 }'],
  [
    'service: orders, mirror: [shadow]',
    'mirror: must be the name of a service, or a map such as { service: shadow, share: 0.1 }',
  ],
  ['service: orders, mirror: { service: shadow, share: 10% }', 'mirror.share: must be a number; 0.2 means 20 %'],
  ['service: orders, split: { orders: 1, shadow: 1 }', 'split: cannot stand next to service'],
  ['service: orders, sticky: consumer', 'sticky: has no effect without split'],
  [
    'split: { orders: 1, shadow: 1 }, sticky: consumer',
    'sticky: is by consumer, and with auth: none callers are not identified',
  ],
  ['split: { orders: 1, shadow: 1 }, sticky: cookie', 'sticky: must be consumer, address, header:NAME or cookie:NAME'],
  [
    "split: { orders: 1, shadow: 1 }, sticky: 'header:a b'",
    'sticky: must be consumer, address, header:NAME or cookie:NAME',
  ],
  ['service: orders, mirror: shdow', 'mirror: no service is named "shdow"; did you mean "shadow"?'],
  [
    'service: orders, mirror: { service: shdow }',
    'mirror.service: no service is named "shdow"; did you mean "shadow"?',
  ],
  ['service: orders, mirror: orders', 'mirror: "orders" gets the requests themselves; name another service'],
  [
    'split: { orders: 1, shadow: 1 }, mirror: shadow',
    'mirror: "shadow" gets the requests themselves; name another service',
  ],
  ['service: orders, mirror: { service: shadow, share: 0 }', 'mirror.share: must be more than 0'],
  ['service: orders, mirror: { service: shadow, share: 1.5 }', 'mirror.share: must be at most 1'],
  ['service: orders, mirror: { service: shadow, maxBody: unlimited }', 'mirror.maxBody: must be at most 1MiB'],
  ['service: orders, mirror: {}', 'mirror.service: is missing (a string)'],
  ['fallback: { split: { orders: 1, shadow: 1 } }, service: orders', 'fallback.split: unknown key'],
])('refuses %s', (keys, problem) => {
  let problems: readonly string[] = []
  try {
    load(`auth: none, ${keys}`)
  } catch (error) {
    problems = (error as ConfigError).problems
  }
  expect(problems.map((text) => text.replace(/^gw\.yaml:4:\d+: routes\[0\]\./, ''))).toContainEqual(
    expect.stringContaining(problem),
  )
})
