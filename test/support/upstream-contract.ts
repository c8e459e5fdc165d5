// What the suites in test/contract/upstream-client share: an upstream and a client that end with their test, and a
// table of responses, each sent in every split. What the forwarder is told must be the same, whoever tells it; where
// the clients differ the case says so, and why.
import type { Dispatcher } from 'undici'
import { afterEach, describe, expect, test } from 'vitest'
import { type Origin, type RawExchange, type Script, startScripted } from './origins.js'
import { type ClientOptions, clients, type UpstreamClient } from './upstream-clients.js'
import { ask, type Verdict } from './upstream-verdict.js'
import { deferred, turns } from './waiting.js'

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const close of cleanup.splice(0).reverse()) await close()
})

/** After the test. */
export function finallyDo(close: () => unknown): void {
  cleanup.push(close)
}

export async function serve(script: Script, others: Readonly<Record<string, Script>> = {}): Promise<Origin> {
  const origin = await startScripted({ '/': script, ...others })
  finallyDo(() => origin.close())
  return origin
}

export function open(client: UpstreamClient, origin: string, options?: ClientOptions): Dispatcher {
  const pool = client.create(origin, options)
  finallyDo(() => pool.destroy())
  return pool
}

export const OK = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'

/** undici lets a turn of the loop pass before it uses a connection again, and takes another one meanwhile. */
export const reusable = (): Promise<void> => turns(2)

/** Sends so much and no more. `closed` resolves when the client has closed the connection. */
export function sendThenWait(bytes: string): { readonly script: Script; readonly closed: Promise<void> } {
  const { promise: closed, resolve } = deferred()
  const script = async (exchange: RawExchange): Promise<void> => {
    await exchange.send(bytes)
    await exchange.closed()
    resolve()
  }
  return { script, closed }
}

/** In one write; a byte a write; in two halves with a turn of the loop between them. */
const splits = {
  whole: (bytes: string) => [bytes],
  'byte by byte': (bytes: string) => [...bytes],
  halves: (bytes: string) => [bytes.slice(0, bytes.length / 2), bytes.slice(bytes.length / 2)],
}

async function sendSplit(exchange: RawExchange, parts: readonly string[]): Promise<void> {
  for (const part of parts) {
    await exchange.send(part)
    await turns(1)
  }
}

export interface ResponseCase {
  readonly what: string
  readonly bytes: string
  readonly method?: 'GET' | 'HEAD'
  readonly expected: Partial<Verdict>
  /** Another outcome with undici, and why that is. */
  readonly undici?: { readonly expected: Partial<Verdict>; readonly why: string }
}

export const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'
export const refused = { status: 0, failure: 'upstream_error' }
export const cutShort = { failure: 'upstream_error' }
export const lost = { status: 0, failure: 'upstream_error, lost' }

/** Each response in each split, by each client. */
export function testResponses(kind: string, responses: readonly ResponseCase[]): void {
  describe.each(clients)(`${kind}, as $name understands it`, (client) => {
    describe.each(Object.entries(splits))('%s', (_, split) => {
      // Byte by byte a long head is a long test, and no other case.
      const short = responses.filter(({ bytes }) => bytes.length <= 1000 || split !== splits['byte by byte'])
      test.each(short)('$what', async ({ bytes, method = 'GET', expected, undici: other }) => {
        const origin = await serve(async (exchange) => {
          await sendSplit(exchange, split(bytes)).catch(() => {})
          exchange.end()
        })
        const verdict = await ask(open(client, origin.url), { method })
        expect(verdict).toMatchObject({
          failure: null,
          ...(client.name === 'undici' && other ? other.expected : expected),
        })
      })
    })
  })
}
