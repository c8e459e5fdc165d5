// Whatever is sent, and by whichever door, the gateway lives, answers or closes, says nothing of 5xx by itself, answers
// what is beyond doubt and nothing twice, and passes on nothing that it did not log or that a strict service would not
// take. Some seconds of it with npm test; TIDEGATE_FUZZ_SECONDS or TIDEGATE_FUZZ_REQUESTS (numbers for each door) make
// it last, TIDEGATE_FUZZ_FROM says where to begin.
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createAuthority, writePair } from '../support/certificates.js'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Door, type FuzzRun, fuzz, TRUSTED } from '../support/request-fuzz.js'
import { mutant } from '../support/request-mutants.js'
import { requireAcceptor } from '../support/requirements.js'
import { type StrictOrigin, startStrictOrigin } from '../support/strict-origin.js'
import { StrictReading } from '../support/strict-reading.js'

const seconds = Number(process.env.TIDEGATE_FUZZ_SECONDS ?? 2)
const requests = Number(process.env.TIDEGATE_FUZZ_REQUESTS ?? Number.POSITIVE_INFINITY)
const from = Number(process.env.TIDEGATE_FUZZ_FROM ?? Math.floor(Math.random() * 2 ** 31))
const isLong = process.env.TIDEGATE_FUZZ_SECONDS !== undefined || Number.isFinite(requests)
const threads = process.env.TIDEGATE_ISOLATION === 'thread'

/** With each its share of the time. Over TLS nobody speaks HTTP/1.0, and workers that are threads have no acceptor. */
const DOORS = [
  { name: 'cleartext', share: 0.5, secure: false, proxied: false },
  { name: 'a PROXY header', share: 0.25, secure: false, proxied: true },
  { name: 'TLS', share: 0.25, secure: true, proxied: !threads },
] as const

let origin: StrictOrigin
let secure: { readonly ca: string; readonly certificate: { cert: string; key: string } }
const runs: FuzzRun[] = []

beforeAll(async () => {
  const authority = await createAuthority()
  const pair = await authority.issue({ cn: 'site', dns: ['a.test'] })
  secure = { ca: authority.cert, certificate: writePair(pair, temporaryFolder()) }
  origin = await startStrictOrigin()
})

afterAll(() => origin.close())

// One worker: who answers one connection has had its turn with all others.
const start = (log: string, proxied: boolean, tls: boolean): Promise<Gateway> =>
  startGateway({
    workers: 1,
    config: {
      consumers: { test: { secret: 'the-secret-of-test' } },
      trustedProxies: [TRUSTED],
      services: { origin: { endpoints: [origin.url] } },
      routes: [
        { match: { path: '/' }, service: 'origin', auth: 'none', maxBody: 10_000 },
        { match: { path: '/signed' }, service: 'origin', auth: 'x-m' },
      ],
      ...(tls ? { tls: { certificates: [secure.certificate] } } : {}),
    },
    env: {
      TIDEGATE_ACCESS_LOG: log,
      TIDEGATE_IDLE_TIMEOUT_MS: '10000',
      TIDEGATE_PROXY_PROTOCOL: proxied ? 'on' : 'off',
    },
  })

async function loggedRids(file: string): Promise<Set<string>> {
  const rids = new Set<string>()
  for await (const line of createInterface({ input: createReadStream(file) })) {
    rids.add(/"rid":"(\w{32})"/.exec(line)?.[1] ?? line)
  }
  return rids
}

test('most mutants say something that is beyond doubt, and most something that is not', () => {
  const whole = { certain: 0, doubtful: 0 }
  for (let number = 0; number < 2000; number++) {
    const reading = new StrictReading(false, true)
    reading.append(mutant(number).bytes.toString('latin1'))
    if (reading.requests.length > 0) whole.certain++
    if (reading.behind === 'doubt' || reading.behind === 'part') whole.doubtful++
  }
  expect(whole.certain).toBeGreaterThan(600)
  expect(whole.doubtful).toBeGreaterThan(600)
})

test.for(DOORS)('requests of any bytes: $name', { timeout: 3_600_000 }, async (one, context) => {
  if (one.proxied) requireAcceptor(context)
  const log = join(temporaryFolder(), 'access.log')
  const gateway = await start(log, one.proxied, one.secure)
  const tls = one.secure ? { ca: secure.ca, servername: 'a.test' } : null
  const door: Door = { ...one, port: gateway.port, tls, http10: !one.secure && gateway.isolation === 'process' }
  const end = Date.now() + seconds * one.share * 1000
  const before = origin.rids.size
  const run = await fuzz(door, from, (numbers) => (Number.isFinite(requests) ? numbers >= requests : Date.now() >= end))
  runs.push(run)
  const forwarded = origin.rids.size - before
  const story = `${one.name}: ${run.sent} requests from ${from}, ${run.owed} beyond doubt, ${forwarded} forwarded, ${run.leftOpen.length} left open: ${JSON.stringify([...run.statuses])}`
  if (isLong) {
    console.log(story)
    await Promise.all(run.leftOpen.map((conversation) => conversation.gone()))
  } else for (const conversation of run.leftOpen) conversation.destroy()
  // An orderly end, no worker lost.
  await gateway.close()
  expect(run.faults, story).toEqual([])
  expect(origin.faults, story).toEqual([])
  const logged = await loggedRids(log)
  expect(
    [...origin.rids].slice(before).filter((rid) => !logged.has(rid)),
    story,
  ).toEqual([])
  expect(forwarded, story).toBeGreaterThanOrEqual(run.statuses.get(200) ?? 0)
})
