// Whatever a request carries: nobody is known by what was not issued, and no text makes a strategy throw.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compile, type Route } from '../../../src/config/compile.js'
import { loadConfig } from '../../../src/config/load.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import { KnownByApiKey } from '../../../src/policy/api-key.js'
import { KnownByPassword } from '../../../src/policy/basic.js'
import { KnownByToken } from '../../../src/policy/jwt.js'
import type { Strategy } from '../../../src/policy/strategy.js'
import { keptAsSha256 } from '../../support/credentials.js'

const { config, settings } = loadConfig({
  text: {
    origin: 'gw.yaml',
    yaml: `
apiKeys: { query: key }
consumers: { c: { apiKeys: '${keptAsSha256('k')}', password: '${keptAsSha256('p')}', jwt: { i: c } } }
jwt: { i: { issuer: i, audience: a, secrets: ${'s'.repeat(32)} } }
services: { s: { endpoints: ['http://h'] } }
routes: [{ match: {}, service: s, auth: [api-key, basic, jwt] }]
`,
  },
  env: {},
})
const table = compile(config, settings)

function decide(
  strategy: Strategy,
  headers: string[],
  query?: string,
): Promise<{ consumer: string | null; refused: boolean }> {
  const exchange = new Exchange(new MemoryDownstream(), 0, 'GET', '/', query, Fields.of(headers))
  exchange.route = table.routes[0] as Route
  strategy.presents(exchange)
  const outcome = (refused: boolean) => ({ consumer: refused ? null : (exchange.consumer?.name ?? null), refused })
  if (strategy.identify(exchange) !== null) return Promise.resolve(outcome(true))
  if (strategy.takesTime?.(exchange) !== true) {
    return Promise.resolve(outcome((strategy.verify?.(exchange) ?? null) !== null))
  }
  return new Promise((resolve) => strategy.verifyLater!(exchange, (_, refused) => resolve(outcome(refused !== null))))
}

const base64 = (text: string) => Buffer.from(text).toString('base64')
const part = fc.oneof(
  fc.base64String(),
  fc.json().map((text) => Buffer.from(text).toString('base64url')),
  fc.constantFrom(
    'e30',
    Buffer.from('{"alg":"none"}').toString('base64url'),
    Buffer.from('{"iss":"i"}').toString('base64url'),
  ),
)
const value = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.tuple(fc.constantFrom('Basic ', 'basic  ', 'Bearer ', 'BEARER '), fc.string()).map((parts) => parts.join('')),
  fc.string({ unit: 'binary' }).map((text) => `Basic ${base64(text)}`),
  fc
    .tuple(fc.constantFrom('c', 'x', ''), fc.string())
    .map(([user, password]) => `Basic ${base64(`${user}:${password}`)}`),
  fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => `Bearer ${parts.join('.')}`),
)

describe('strategies', () => {
  test('know who they are to know', async () => {
    expect(await decide(new KnownByApiKey(table), ['x-api-key', 'k'])).toEqual({ consumer: 'c', refused: false })
    expect(await decide(new KnownByApiKey(table), [], 'key=k')).toEqual({ consumer: 'c', refused: false })
    const basic = ['authorization', `Basic ${base64('c:p')}`]
    expect(await decide(new KnownByPassword(table), basic)).toEqual({ consumer: 'c', refused: false })
  })

  test.each([
    ['x-api-key', new KnownByApiKey(table)],
    ['authorization', new KnownByPassword(table)],
    ['authorization', new KnownByToken(table, () => {})],
  ])('refuse whatever else is in %s', async (name, strategy) => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(value, { maxLength: 2 }),
        fc.option(fc.string(), { nil: undefined }),
        async (values, query) => {
          fc.pre(
            !values.includes('k') && query?.includes('key=k') !== true && !values.includes(`Basic ${base64('c:p')}`),
          )
          const headers = values.flatMap((one) => [name, one])
          expect(await decide(strategy, headers, query)).toEqual({ consumer: null, refused: true })
        },
      ),
      { numRuns: 2000 },
    )
  })
})
