// Whatever an upstream sends, each client gets a whole response that is its own, or an end, within its deadline; the
// gateway throws nothing, loses no worker and holds nothing back. Through a real gateway and both upstream clients.
// Some seconds of it with npm test; TIDEGATE_FUZZ_SECONDS or TIDEGATE_FUZZ_REQUESTS (for each client) make it last,
// TIDEGATE_FUZZ_FROM says where to begin.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { AnswerStream } from '../support/answer-stream.js'
import { type Gateway, startGateway } from '../support/gateway.js'
import { fuzzResponses, MutatingOrigin, TIMEOUTS } from '../support/response-fuzz.js'
import { askedFor, upstreamResponse } from '../support/response-mutants.js'
import { eventually } from '../support/waiting.js'

const CLIENTS = ['lean', 'undici'] as const

const seconds = Number(process.env.TIDEGATE_FUZZ_SECONDS ?? 4) / CLIENTS.length
const requests = Number(process.env.TIDEGATE_FUZZ_REQUESTS ?? Number.POSITIVE_INFINITY)
const from = Number(process.env.TIDEGATE_FUZZ_FROM ?? Math.floor(Math.random() * 2 ** 30))

const origin = new MutatingOrigin()
let gateway: Gateway

beforeAll(async () => {
  await origin.listen()
  // One worker: whatever one exchange does to the others, it does to all of them.
  gateway = await startGateway({
    workers: 1,
    config: {
      services: Object.fromEntries(
        CLIENTS.map((client) => [client, { endpoints: origin.endpoints, client, timeouts: TIMEOUTS }]),
      ),
      routes: CLIENTS.map((client) => ({
        match: { path: `/${client}` },
        service: client,
        auth: 'none',
        stripPrefix: true,
      })),
    },
    env: { TIDEGATE_ACCESS_LOG: 'off' },
  })
})

afterAll(() => origin.close())

test('many of them are whole by the strictest reading, and many are none', () => {
  let whole = 0
  let faulty = 0
  for (let number = 0; number < 2000; number++) {
    let faults = 0
    const fault = (): number => faults++
    const stream = new AnswerStream(
      () => askedFor(number).method,
      () => {},
      fault,
    )
    stream.feed(upstreamResponse(number).bytes.latin1Slice())
    if (faults === 0 && stream.answers === 1 && stream.complete) whole++
    else faulty++
  }
  expect(whole).toBeGreaterThan(300)
  expect(faulty).toBeGreaterThan(600)
})

test.each(CLIENTS)('responses of any bytes, through %s', { timeout: 3_600_000 }, async (client) => {
  const end = Date.now() + seconds * 1000
  const startedMs = performance.now()
  const run = await fuzzResponses(gateway.port, `/${client}`, from, (asked) =>
    Number.isFinite(requests) ? asked >= requests : Date.now() >= end,
  )
  const { asked, answered, cut, strays, left, slowestMs, statuses } = run
  const perSecond = Math.round(asked / ((performance.now() - startedMs) / 1000))
  const story = `${client}: ${asked} from ${from}, ${perSecond}/s: ${answered} answered, ${cut} cut, ${left} left, ${strays} strays, slowest ${Math.round(slowestMs)} ms: ${JSON.stringify([...statuses])}`
  if (process.env.TIDEGATE_FUZZ_SECONDS !== undefined || Number.isFinite(requests)) console.log(story)
  expect(run.faults, story).toEqual([])
  expect(answered + cut + left, story).toBe(asked)
  // Those that left may be told of last.
  const inFlight = async () => (await gateway.status()).workers.map((worker) => worker.inFlight)
  await eventually('no request in flight', inFlight, [0])
})

test('an orderly end: no worker lost, and nothing thrown on the way', async () => {
  await gateway.close()
  expect(gateway.log.all.filter(({ level }) => level >= 50)).toEqual([])
})
