// Whoever is slow holds the other side back: an upstream that does not read, and a reader that pauses.
import { Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import { describe, expect, test } from 'vitest'
import { clients } from '../../support/upstream-clients.js'
import { chunked, OK, open, reusable, serve } from '../../support/upstream-contract.js'
import { send } from '../../support/upstream-verdict.js'
import { deferred, turns } from '../../support/waiting.js'

/** A client that does not wait goes on in each turn of the loop: in so many it would have sent, or read, everything. */
const TURNS = 2000

describe.each(clients)('flow control by $name', (client) => {
  test('a stream is read no faster than the upstream reads', async () => {
    let pulled = 0
    const body = new Readable({
      read() {
        pulled++
        this.push(pulled <= 1000 ? Buffer.alloc(65536) : null)
      },
    })
    const { promise: told, resolve: proceed } = deferred()
    const origin = await serve(async (exchange) => {
      await told
      expect((await exchange.body()).bytes.length).toBe(65_536_000)
      await exchange.send(OK)
    })
    const sent = send(open(client, origin.url), { method: 'POST', body })
    await origin.requests.take(1, () => true, 'the request')
    await turns(TURNS)
    expect(pulled).toBeLessThan(500)
    proceed()
    expect((await sent.verdict).body).toBe('ok')
  })
  test.each([
    ['a length', 'Content-Length: 33554432\r\n\r\n'],
    ['the end of the connection', '\r\n'],
  ])('a reader that pauses holds the upstream back: a body delimited by %s', async (_, fields) => {
    const block = Buffer.alloc(1_048_576, 'abcdefg')
    let written = 0
    const origin = await serve(async (exchange) => {
      await exchange.send(`HTTP/1.1 200 OK\r\n${fields}`)
      for (; written < 32; written++) await exchange.send(block)
      exchange.end()
    })
    const { promise: pausedOnce, resolve: paused } = deferred<Dispatcher.DispatchController>()
    let bytes = 0
    let chunksWhilePaused = 0
    const sent = send(open(client, origin.url), {}, (chunk, controller) => {
      if (bytes > 0 && controller.paused) chunksWhilePaused++
      bytes += chunk.length
      if (bytes > 100_000 && bytes - chunk.length <= 100_000) {
        controller.pause()
        paused(controller)
      }
    })
    const controller = await pausedOnce
    await turns(TURNS)
    expect([written < 30, bytes < 300_000, chunksWhilePaused]).toEqual([true, true, 0])
    controller.resume()
    const verdict = await sent.verdict
    expect(verdict.failure).toBeNull()
    expect(Buffer.from(verdict.body, 'latin1').equals(Buffer.concat(Array(32).fill(block)))).toBe(true)
  })

  test('a reader that pauses in the middle of what was read loses nothing', async () => {
    const text = `${chunked}${Array.from({ length: 50 }, (_, i) => `2\r\n${String(i).padStart(2, '0')}\r\n`).join('')}0\r\nX-T: 1\r\n\r\n`
    const origin = await serve((exchange) => exchange.send(text))
    const pool = open(client, origin.url)
    for (let i = 0; i < 2; i++) {
      const sent = send(pool, {}, (_, controller) => {
        controller.pause()
        setImmediate(() => controller.resume())
      })
      const verdict = await sent.verdict
      expect(verdict.body).toBe(Array.from({ length: 50 }, (_, n) => String(n).padStart(2, '0')).join(''))
      expect(verdict.trailers).toEqual({ 'x-t': '1' })
      await reusable()
    }
    expect(origin.connections).toBe(1)
  })
})
