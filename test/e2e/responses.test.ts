// What an upstream may say, and must not: each response, through both upstream clients, as a client of the gateway gets
// it. Byte by byte and without a gateway the same is in test/contract/upstream-client.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, type Script, startScripted } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { PASSED, REFUSED } from '../support/response-cases.mjs'

const CLIENTS = ['lean', 'undici'] as const

interface ResponseCase {
  readonly name: string
  /** A character a byte. */
  readonly bytes: string
}
interface Passed extends ResponseCase {
  /** What a client gets of it; `ok` and `OK` where it is not said. */
  readonly text?: string
  readonly phrase?: string
  readonly fields?: Readonly<Record<string, readonly string[]>>
  readonly undici?: 'refuses'
}
interface Refused extends ResponseCase {
  readonly reason: RegExp
}

const passed: readonly Passed[] = PASSED as never
const refused: readonly Refused[] = REFUSED as never

const send =
  (bytes: string): Script =>
  (exchange) =>
    exchange.send(Buffer.from(bytes, 'latin1'))
const pathOf = (what: string) => `/${what.replaceAll(' ', '-')}`

let origin: Origin
let gateway: Gateway

beforeAll(async () => {
  origin = await startScripted(
    Object.fromEntries([...passed, ...refused].map(({ name, bytes }) => [pathOf(name), send(bytes)])),
  )
  const timeouts = { firstByte: '2s', idle: '2s', total: '5s' }
  gateway = await startGateway({
    workers: 1,
    config: {
      services: Object.fromEntries(CLIENTS.map((client) => [client, { endpoints: [origin.url], client, timeouts }])),
      routes: CLIENTS.map((client) => ({
        match: { path: `/${client}` },
        service: client,
        auth: 'none',
        stripPrefix: true,
      })),
    },
  })
})

afterAll(async () => {
  // An orderly end, and no exception on the way.
  await gateway.close()
  expect(gateway.log.all.filter(({ level }) => level >= 50)).toEqual([])
  await origin.close()
})

describe.each(CLIENTS)('through %s', (client) => {
  test.each(passed)('passed on: $name', async ({ name, text = 'ok', phrase = 'OK', fields = {}, undici }) => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ target: `/${client}${pathOf(name)}` })
    if (client === 'undici' && undici === 'refuses') expect(answer.status).toBe(502)
    else {
      expect(answer.status).toBe(200)
      expect(answer.text).toBe(text)
      expect(answer.phrase).toBe(phrase)
      for (const [field, values] of Object.entries(fields)) expect(answer.all(field), field).toEqual(values)
    }
    expect((await connection.exchange({ target: `/${client}/next` })).status).toBe(200)
    connection.destroy()
  })

  test.each(refused)('refused: $name', async ({ name, reason }) => {
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ target: `/${client}${pathOf(name)}` })
    expect(answer.status).toBe(502)
    expect(await gateway.logged(answer)).toMatchObject({
      code: 'upstream_error',
      reason: expect.stringMatching(reason),
    })
    expect((await connection.exchange({ target: `/${client}/next` })).status).toBe(200)
    connection.destroy()
  })
})
