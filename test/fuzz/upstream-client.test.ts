// Any bytes in any split: the lean client and undici make the same of them, or differ as test/support/upstream-fuzz.ts
// says they may. TIDEGATE_FUZZ_SECONDS makes it last, over each of the lean client's transports for its part of the
// time.
import fc from 'fast-check'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { lean, leans } from '../support/upstream-clients.js'
import { CaseServer, disagreement, upstreamCase } from '../support/upstream-fuzz.js'

/** TIDEGATE_FUZZ_FROM: the same cases in every run. */
const seed = process.env.TIDEGATE_FUZZ_FROM === undefined ? {} : { seed: Number(process.env.TIDEGATE_FUZZ_FROM) }
const seconds = Number(process.env.TIDEGATE_FUZZ_SECONDS ?? 6) / leans.length

// A server for each test: the last case of a fuzzed test may still be under way when its time is over, and would change
// what the next test hears.
let server: CaseServer
beforeEach(async () => {
  server = new CaseServer()
  await server.listen()
})
afterEach(() => server.close())

const timeout = (seconds + 30) * 1000
test.each(leans)('undici and $name make the same of a response, however it is split', { timeout }, async (client) => {
  const here = server
  const property = fc.asyncProperty(upstreamCase, async (one) => {
    expect(disagreement(one, await here.verdicts(one, client))).toBeNull()
  })
  await fc.assert(property, {
    ...seed,
    numRuns: Number.MAX_SAFE_INTEGER,
    interruptAfterTimeLimit: seconds * 1000,
    markInterruptAsFailure: false,
  })
})

test('a case that only one of them takes is told from one they agree on', async () => {
  const answer = { method: 'GET', bytes: 'HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n', cuts: [] } as const
  const verdicts = await server.verdicts(answer, lean)
  // undici may hear of the end of the connection before it misses the body: both are a failure of the service.
  expect(verdicts.undici.failure).toMatch(/^upstream_error(, lost)?$/)
  expect(verdicts.lean.failure).toBeNull()
  expect(disagreement(answer, verdicts)).toBeNull()
  expect(disagreement({ ...answer, bytes: 'HTTP/1.1 200 X' }, verdicts)).toContain('undici')
})
