// Whatever a request carries: no signature is taken for one that it is not, and no text makes the strategy throw. Which
// reason each fault has is in test/e2e/http-signature.test.ts.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compile, type Route } from '../../../src/config/compile.js'
import { loadConfig } from '../../../src/config/load.js'
import { MemoryDownstream } from '../../../src/downstream/memory.js'
import { Exchange } from '../../../src/exchange/exchange.js'
import { Fields } from '../../../src/exchange/fields.js'
import type { DigestPool } from '../../../src/policy/digest-pool.js'
import { SignedMessage } from '../../../src/policy/http-signature.js'
import { contentDigest, httpSignatureKeys, linesOf, signMessage } from '../../support/http-signing.js'

const yaml = JSON.stringify({
  consumers: { c: { httpSignatureKeys: httpSignatureKeys('test-key-ed25519', 'test-shared-secret') } },
  services: { s: { endpoints: ['http://h'] } },
  routes: [{ match: {}, service: 's', auth: 'http-signature' }],
})
const { config, settings } = loadConfig({ text: { origin: 'gw.yaml', yaml }, env: {} })
const table = compile(config, settings)
// Never asked: no body here is long enough.
const strategy = new SignedMessage(table, null as unknown as DigestPool, 2 ** 30)

interface Parts {
  readonly method: string
  readonly path: string
  readonly query: string | undefined
  readonly headers: readonly string[]
  readonly body: string | null
}

function decide({ method, path, query, headers, body }: Parts): { consumer: string | null; exchange: Exchange } {
  const exchange = new Exchange(new MemoryDownstream(), 0, method, path, query, Fields.of([...headers]))
  exchange.route = table.routes[0] as Route
  exchange.contentLength = body === null ? 0 : body.length
  const unwelcome = strategy.identify(exchange)
  if (unwelcome !== null) {
    expect(unwelcome.status).toBe(401)
    return { consumer: null, exchange }
  }
  exchange.body = strategy.needsBody(exchange) ? Buffer.from(body as string) : null
  expect(strategy.takesTime(exchange)).toBe(false)
  return { consumer: strategy.verify(exchange) === null ? (exchange.consumer?.name ?? null) : null, exchange }
}

const signed = signMessage(
  linesOf({ method: 'POST', target: '/orders?id=7', host: 'h.example' }, contentDigest('a body')),
  { keyid: 'test-shared-secret' },
)
const GOOD: Parts = {
  method: 'POST',
  path: '/orders',
  query: 'id=7',
  headers: ['host', 'h.example', 'content-digest', contentDigest('a body'), ...Object.entries(signed).flat()],
  body: 'a body',
}

test('a good one is known', () => {
  const { consumer, exchange } = decide(GOOD)
  expect(consumer).toBe('c')
  expect(exchange.signature).toContain('"@signature-params": ("@method" ')
  expect(exchange.signatureUntilSeconds - Math.floor(Date.now() / 1000)).toBeGreaterThan(290)
})

/** One character changed, taken out or put in. */
const edit = fc.record({
  at: fc.nat(),
  how: fc.constantFrom('change', 'remove', 'insert'),
  char: fc.constantFrom(...'aA0=,;:"()+/ ?%\\'),
})
function edited(text: string, { at, how, char }: { at: number; how: string; char: string }): string {
  const start = at % (text.length + 1)
  const rest = how === 'insert' ? start : start + 1
  return text.slice(0, start) + (how === 'remove' ? '' : char) + text.slice(rest)
}

describe('one character anywhere', () => {
  /** What does not change what is signed: blanks between list members, base64's last bits. */
  const sameMeaning = (headers: readonly string[]): boolean => {
    const { exchange, consumer } = decide({ ...GOOD, headers })
    return consumer !== null && exchange.signature === decide(GOOD).exchange.signature
  }

  test.each([0, 1, 2, 3])('in value %i: it is refused, or means the same', (value) => {
    fc.assert(
      fc.property(edit, (change) => {
        const headers = GOOD.headers.map((text, at) => (at === value * 2 + 1 ? edited(text, change) : text))
        const { consumer } = decide({ ...GOOD, headers })
        if (consumer !== null) expect(sameMeaning(headers)).toBe(true)
      }),
      { numRuns: 3000 },
    )
  })

  test.each(['method', 'path', 'query', 'body'] as const)('in the %s: it is refused', (part) => {
    fc.assert(
      fc.property(edit, (change) => {
        const other = edited(GOOD[part] as string, change)
        fc.pre(other !== GOOD[part])
        expect(decide({ ...GOOD, [part]: other }).consumer).toBeNull()
      }),
      { numRuns: 500 },
    )
  })
})

test('whatever else is in the fields is refused', () => {
  const structured = fc.string({ unit: fc.constantFrom(...'ab1=,;:"()?@*% -.'), maxLength: 40 })
  const value = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 40 }),
    structured,
    structured.map((text) => `sig1=(${text});created=1;keyid="test-key-ed25519"`),
    structured.map(
      (text) => `sig1=("@method");created=${Math.floor(Date.now() / 1000)};keyid="test-key-ed25519"${text}`,
    ),
    fc.base64String({ maxLength: 100 }).map((text) => `sig1=:${text}:`),
  )
  const name = fc.constantFrom('signature', 'signature-input', 'content-digest', 'host')
  fc.assert(
    fc.property(fc.array(fc.tuple(name, value), { maxLength: 5 }), fc.option(fc.string()), (fields, body) => {
      expect(decide({ ...GOOD, headers: fields.flat(), body }).consumer).toBeNull()
    }),
    { numRuns: 5000 },
  )
})
