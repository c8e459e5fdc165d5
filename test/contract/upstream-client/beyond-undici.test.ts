// What the lean client does beyond undici: it sends again what was lost on a used connection, lets go of idle ones, and
// drops what waits.
import { describe, expect, test } from 'vitest'
import type { Origin, RawExchange, Script } from '../../support/origins.js'
import { leans } from '../../support/upstream-clients.js'
import { lost, OK, open, sendThenWait, serve } from '../../support/upstream-contract.js'
import { ask, send } from '../../support/upstream-verdict.js'
import { deferred } from '../../support/waiting.js'

describe.each(leans)('what $name does beyond undici', (lean) => {
  /** Answers the first request of the first connection, and what comes after it with `then`. */
  async function stale(then: (exchange: RawExchange) => void): Promise<Origin> {
    let served = 0
    const script: Script = async (exchange) => {
      if (++served === 2) return then(exchange)
      await exchange.send(OK)
    }
    return serve(script)
  }

  test.each([
    ['reset', (exchange: RawExchange) => exchange.reset()],
    ['closed', (exchange: RawExchange) => exchange.end()],
  ])('a used connection that is %s before the answer: the request is sent again on a fresh one', async (_, then) => {
    const origin = await stale(then)
    const pool = open(lean, origin.url)
    await ask(pool)
    expect(await ask(pool)).toMatchObject({ body: 'ok', failure: null })
    expect([origin.connections, origin.requests.all.length]).toEqual([2, 3])
  })

  test('a body in memory is sent again with it, where the method allows', async () => {
    const origin = await stale((exchange) => exchange.reset())
    const pool = open(lean, origin.url)
    await ask(pool)
    expect(await ask(pool, { method: 'PUT', body: Buffer.from('') })).toMatchObject({ body: 'ok', failure: null })
    expect(origin.requests.all.length).toBe(3)
  })

  test('a POST is not sent twice, and the error says what is known', async () => {
    const origin = await stale((exchange) => exchange.reset())
    const pool = open(lean, origin.url)
    await ask(pool)
    const sent = send(pool, { method: 'POST', body: Buffer.from('') })
    expect(await sent.verdict).toMatchObject(lost)
    expect(sent.error).toMatchObject({ reusedConnection: true, responseStarted: false })
    expect(origin.requests.all.length).toBe(2)
  })

  test('nor is anything once a byte of the answer has come', async () => {
    const origin = await stale(async (exchange) => {
      await exchange.send('H')
      exchange.end()
    })
    const pool = open(lean, origin.url)
    await ask(pool)
    const sent = send(pool)
    expect(await sent.verdict).toMatchObject(lost)
    expect(sent.error).toMatchObject({ reusedConnection: true, responseStarted: true })
    expect(origin.requests.all.length).toBe(2)
  })

  test('nor a third time, and not on a fresh connection', async () => {
    let served = 0
    const origin = await serve(async (exchange) => {
      if (++served === 1) await exchange.send(OK)
      else exchange.end()
    })
    const pool = open(lean, origin.url)
    await ask(pool)
    const sent = send(pool)
    expect(await sent.verdict).toMatchObject(lost)
    expect(sent.error).toMatchObject({ reusedConnection: false, responseStarted: false })
    expect(origin.requests.all.length).toBe(3)
  })

  test.each([
    ['after its time', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'],
    [
      'at once where the upstream says it soon will',
      'HTTP/1.1 200 OK\r\nKeep-Alive: timeout=1\r\nContent-Length: 2\r\n\r\nok',
    ],
  ])('an idle connection is let go %s', async (_, answer) => {
    const { script, closed } = sendThenWait(answer)
    const origin = await serve(script)
    expect((await ask(open(lean, origin.url, { keepAliveMs: 500 }))).body).toBe('ok')
    await closed
  })

  test('a length without a body is refused', async () => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(lean, origin.url)
    expect(await ask(pool, { method: 'POST', headers: ['content-length', '2'] })).toMatchObject({
      failure: 'bad_request',
    })
    expect(origin.requests.all).toEqual([])
  })

  test('a request that waits for a connection can be aborted, and is never sent', async () => {
    const { promise: told, resolve: answer } = deferred()
    const origin = await serve(
      async (exchange) => {
        await told
        await exchange.send(OK)
      },
      { '/after': (exchange) => exchange.send(OK) },
    )
    const pool = open(lean, origin.url, { connections: 1 })
    const first = ask(pool)
    const waits = send(pool, { path: '/never' })
    const after = ask(pool, { path: '/after' })
    await origin.requests.take(1, () => true, 'the first')
    waits.controller!.abort(new Error('enough'))
    expect((await waits.verdict).failure).not.toBeNull()
    answer()
    expect([(await first).body, (await after).body]).toEqual(['ok', 'ok'])
    expect(origin.requests.all.map((seen) => seen.url)).toEqual(['/', '/after'])
  })
})
