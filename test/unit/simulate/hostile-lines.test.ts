// Whatever a log holds, a simulation reads it to the end.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { simulate } from '../../../src/cli/simulate/simulate.js'
import { OUTCOME_CODES } from '../../../src/exchange/outcome.js'
import { cleanEnvironment, temporaryFolder, writeConfig } from '../../support/gateway.js'

const TIME = Date.UTC(2026, 10, 21)

const number = fc.oneof(fc.integer({ min: 0, max: 1000 }), fc.double(), fc.constant(Number.MAX_SAFE_INTEGER))
const text = fc.oneof(fc.constantFrom('r', 's', '/', '/a/b', '/%2e%2e/', 'GET', 'a', '10.0.0.1'), fc.string())
const code = fc.constantFrom('', ...OUTCOME_CODES)
const line = fc.record(
  {
    time: fc.oneof(fc.integer({ min: TIME, max: TIME + 100_000 }), number),
    rid: fc.constant('00'),
    consumer: text,
    client: text,
    method: text,
    path: text,
    route: text,
    service: text,
    endpoint: text,
    status: fc.oneof(fc.integer({ min: 100, max: 999 }), number),
    code,
    reason: fc.oneof(fc.constantFrom('limit plan', 'connection lost', 'first byte timeout', 'TLS: X'), fc.string()),
    fallback: code,
    handler: fc.constantFrom('', 'static', 'split'),
    totalMs: number,
    upstreamMs: number,
    attempts: number,
    retried: fc.constantFrom('', 'connect', 'reset', 'timeout', 'status', 'out', 'hedge', 'other'),
    bytesIn: number,
  },
  { requiredKeys: ['time', 'rid', 'method', 'path', 'status', 'totalMs'] },
)

it('any values of its keys, in any order of time', async () => {
  const config = writeConfig({
    consumers: { a: { secret: 'a secret of thirty-two bytes or more' } },
    limits: { plan: { by: ['address', 'route'], rate: '5/m', burst: 10 }, quota: { by: 'route', quota: '50/day' } },
    services: {
      s: { endpoints: ['http://127.0.0.1:9001', 'http://127.0.0.1:9002'], breaker: { minRequests: 2 } },
      t: { endpoints: ['http://127.0.0.1:9003'] },
    },
    routes: [
      { name: 'r', match: { path: '/' }, split: { s: 50, t: 50 }, auth: 'none', limits: ['plan'] },
      { name: 'q', match: { path: '/a' }, service: 's', auth: 'x-m', limits: ['quota'], fallback: { service: 't' } },
    ],
  })
  const log = join(temporaryFolder(), 'access.log')
  const good = { time: TIME, rid: '00', method: 'GET', path: '/', status: 200, totalMs: 1, attempts: 1, route: 'r' }
  await fc.assert(
    fc.asyncProperty(fc.array(line, { maxLength: 200 }), async (lines) => {
      writeFileSync(log, [good, ...lines].map((one) => JSON.stringify(one)).join('\n'))
      const { text } = await simulate([config, log], { json: true }, (text) => text, cleanEnvironment())
      const report = JSON.parse(text)
      expect(report.log.requests + report.log.malformed).toBe(lines.length + 1)
      expect((await simulate([config, log], {}, (text) => text, cleanEnvironment())).text).toContain(log)
      await simulate([log], { compare: [config, config] }, (text) => text, cleanEnvironment())
    }),
    { numRuns: 10 },
  )
})
