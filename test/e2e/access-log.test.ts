// The access log of a running gateway: what a line says, where it goes, and what never gets into it.
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { type Origin, startEcho } from '../support/origins.js'
import { call } from '../support/raw-client.js'
import { signedHeaders, TEST } from '../support/signing.js'

let echo: Origin
let gateway: Gateway
let config: object

beforeAll(async () => {
  echo = await startEcho()
  const open = (path: string, rest: object = {}) => ({
    name: path.slice(1),
    match: { path },
    service: 'echo',
    auth: 'none',
    ...rest,
  })
  config = {
    consumers: { test: { secret: TEST.secret } },
    services: { echo: { endpoints: [echo.url] } },
    routes: [
      open('/plain'),
      open('/query', { logQuery: true }),
      open('/quiet', { accessLog: false }),
      { name: 'signed', match: { path: '/signed' }, service: 'echo', auth: 'x-m' },
    ],
  }
  gateway = await startGateway({ config })
})

afterAll(async () => {
  await gateway.close()
  await echo.close()
})

test('a line says who asked for what, where it went, how it ended and how long it took', async () => {
  const before = Date.now()
  const target = '/signed/in?token=hidden'
  const answer = await call(gateway.port, {
    method: 'POST',
    target,
    headers: signedHeaders(TEST, { method: 'POST', target, body: 'hello' }),
    body: 'hello',
  })
  const line = await gateway.logged(answer)
  expect(line).toEqual({
    level: 30,
    time: expect.any(Number),
    rid: answer.rid,
    consumer: 'test',
    client: '127.0.0.1',
    method: 'POST',
    path: '/signed/in',
    route: 'signed',
    service: 'echo',
    endpoint: echo.url,
    status: 200,
    bytesIn: 5,
    bytesOut: answer.body.length,
    totalMs: expect.any(Number),
    upstreamMs: expect.any(Number),
    attempts: 1,
  })
  expect(line.time).toBeGreaterThanOrEqual(before - 1)
  expect(line.time).toBeLessThanOrEqual(Date.now() + 1)
  expect(line.totalMs).toBeGreaterThanOrEqual(line.upstreamMs!)
})

test('a refused one has its code and reason, and names no endpoint', async () => {
  const answer = await call(gateway.port, { target: '/nowhere?token=hidden' })
  expect(await gateway.logged(answer)).toEqual({
    level: 30,
    time: expect.any(Number),
    rid: answer.rid,
    client: '127.0.0.1',
    method: 'GET',
    path: '/nowhere',
    status: 404,
    code: 'no_route',
    reason: 'no route',
    bytesIn: 0,
    bytesOut: answer.body.length,
    totalMs: expect.any(Number),
    attempts: 0,
  })
})

test('the query is shown where the route says so, and only there', async () => {
  const shown = await gateway.logged(await call(gateway.port, { target: '/query?a="b"\\&c' }))
  expect(shown).toMatchObject({ path: '/query', query: 'a="b"\\&c' })
  const hidden = await gateway.logged(await call(gateway.port, { target: '/plain?token=hidden' }))
  expect(hidden).not.toHaveProperty('query')
})

test('a route can be left out of it', async () => {
  const quiet = await call(gateway.port, { target: '/quiet' })
  expect(quiet.status).toBe(200)
  // On both workers something else is logged after it.
  const later = await Promise.all(Array.from({ length: 8 }, () => call(gateway.port, { target: '/plain' })))
  for (const answer of later) await gateway.logged(answer)
  expect(gateway.access.all.some((line) => line.rid === quiet.rid)).toBe(false)
})

test('no header ever gets into it', async () => {
  const headers = { Authorization: 'Bearer verysecret', Cookie: 'session=verysecret', 'X-Api-Key': 'verysecret' }
  await gateway.logged(await call(gateway.port, { target: '/plain', headers }))
  expect(gateway.command.stdout.text + gateway.command.stderr.text).not.toMatch(/verysecret|token=hidden/)
})

describe('elsewhere', () => {
  test('in a file, complete once the gateway has ended, and nothing on stdout', async () => {
    const file = join(temporaryFolder(), 'access.log')
    const own = await startGateway({ config, env: { TIDEGATE_ACCESS_LOG: file } })
    const answers = await Promise.all(Array.from({ length: 50 }, () => call(own.port, { target: '/plain' })))
    await own.close()
    const lines = readFileSync(file, 'utf8').split('\n')
    expect(lines.pop()).toBe('')
    const logged = lines.map((line) => (JSON.parse(line) as { rid: string }).rid)
    expect(logged.toSorted()).toEqual(answers.map((answer) => answer.rid).toSorted())
    expect(own.command.stdout.text).toBe('')
  })

  test('or nowhere', async () => {
    const own = await startGateway({ config, env: { TIDEGATE_ACCESS_LOG: 'off' } })
    expect((await call(own.port, { target: '/plain' })).status).toBe(200)
    await own.close()
    expect(own.command.stdout.text).toBe('')
  })
})
