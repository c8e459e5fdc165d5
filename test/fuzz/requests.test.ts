// Whatever is sent, the gateway lives, answers or closes, says nothing of 5xx by itself, and passes on nothing that it did not log or that
// a strict service would not take. Five seconds of it with npm test; TIDEGATE_FUZZ_SECONDS or TIDEGATE_FUZZ_REQUESTS make it last.
import { createReadStream } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { expect, test } from 'vitest'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { call } from '../support/raw-client.js'
import { fuzz, startStrictOrigin } from '../support/request-fuzz.js'

const seconds = Number(process.env.TIDEGATE_FUZZ_SECONDS ?? 4)
const requests = Number(process.env.TIDEGATE_FUZZ_REQUESTS ?? Number.POSITIVE_INFINITY)
const from = Number(process.env.TIDEGATE_FUZZ_FROM ?? Math.floor(Math.random() * 2 ** 31))
const isLong = process.env.TIDEGATE_FUZZ_SECONDS !== undefined || Number.isFinite(requests)

/** 408: heads that never end, behind a request that was answered. 505: of a version that is not served. */
const EXPECTED = new Set(['100', '200', '400', '401', '404', '408', '413', '431', '505'])

async function loggedRids(file: string): Promise<Set<string>> {
  const rids = new Set<string>()
  for await (const line of createInterface({ input: createReadStream(file) })) {
    rids.add(/"rid":"(\w{32})"/.exec(line)?.[1] ?? line)
  }
  return rids
}

test('requests of any bytes', { timeout: 3_600_000 }, async () => {
  const origin = await startStrictOrigin()
  const log = join(temporaryFolder(), 'access.log')
  const gateway: Gateway = await startGateway({
    config: {
      consumers: { test: { secret: 'the-secret-of-test' } },
      services: { origin: { endpoints: [origin.url] } },
      routes: [
        { match: { path: '/' }, service: 'origin', auth: 'none', maxBody: 10_000 },
        { match: { path: '/signed' }, service: 'origin', auth: 'x-m' },
      ],
    },
    env: { TIDEGATE_ACCESS_LOG: log, TIDEGATE_IDLE_TIMEOUT_MS: '10000' },
  })
  const end = Date.now() + seconds * 1000
  const run = await fuzz(gateway.port, from, EXPECTED, (sent) =>
    Number.isFinite(requests) ? sent >= requests : Date.now() >= end,
  )
  const story = `${run.sent} requests from ${from}, ${origin.rids.size} of them forwarded: ${JSON.stringify([...run.statuses])}`
  if (isLong) {
    console.log(story)
    // An incomplete request has 10 s.
    await Promise.all(run.leftOpen.map(({ gone }) => gone))
  }
  for (const { socket } of run.leftOpen) socket.destroy()
  expect((await call(gateway.port)).status).toBe(200)
  // An orderly end, no worker lost.
  await gateway.close()
  origin.close()
  expect(run.unexpected, story).toEqual([])
  expect(origin.faults, story).toEqual([])
  const logged = await loggedRids(log)
  expect(
    [...origin.rids.keys()].filter((rid) => !logged.has(rid)),
    story,
  ).toEqual([])
  expect(origin.rids.size, story).toBeGreaterThan(run.sent / 20)
})
