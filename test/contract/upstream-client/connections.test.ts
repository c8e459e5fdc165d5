// Connections: which of them are used again, what costs them, how many there are, and how they end.
import { Readable } from 'node:stream'
import { describe, expect, test } from 'vitest'
import type { RawExchange, Script } from '../../support/origins.js'
import { clients } from '../../support/upstream-clients.js'
import { OK, open, reusable, sendThenWait, serve } from '../../support/upstream-contract.js'
import { ask, send } from '../../support/upstream-verdict.js'
import { deferred } from '../../support/waiting.js'

describe.each(clients)('connections, as $name keeps them', (client) => {
  test('the same head again and again is told each time; bytes of a body that look like it are not', async () => {
    const head = (length: number, name: string): string =>
      `HTTP/1.1 200 OK\r\nX: ${name}\r\nContent-Length: ${length}\r\n\r\n`
    const one = head(70, 'one')
    const bodies = [...'abcdef'].map((letter) => letter.repeat(70))
    const looksLikeIt = `${one}${'-'.repeat(70 - one.length)}`
    const answers = [
      ...bodies.map((body) => [one + body]),
      // In a write of its own, so that it is read like an answer.
      [one, looksLikeIt],
      [one, looksLikeIt],
      [one.slice(0, 20), one.slice(20), bodies[0]!],
      ...bodies.map((body, i) => [head(70, i % 2 === 0 ? 'one' : 'two') + body]),
      ...bodies.map((body) => [one + body]),
      ...bodies.map((body) => [head(70, 'two') + body]),
    ]
    let asked = 0
    const origin = await serve(async (exchange) => {
      for (const part of answers[asked++]!) {
        await exchange.send(part)
        await reusable()
      }
    })
    const pool = open(client, origin.url)
    for (const parts of answers) {
      const text = parts.join('')
      const { headers, body } = await ask(pool)
      expect(`${headers.x} ${body}`).toBe(`${text.includes('X: one') ? 'one' : 'two'} ${text.slice(-70)}`)
      await reusable()
    }
    expect(origin.connections).toBe(1)
  })

  test('one serves request after request', async () => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(client, origin.url)
    for (let i = 0; i < 5; i++) {
      expect((await ask(pool, { method: i === 2 ? 'HEAD' : 'GET' })).status).toBe(200)
      await reusable()
    }
    // The HEAD's body came all the same and cost the connection.
    expect(origin.connections).toBe(2)
  })

  test.each([
    'HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok',
    'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
  ])('one that the upstream will close is not used again: %j', async (answer) => {
    const origin = await serve(sendThenWait(answer).script)
    const pool = open(client, origin.url)
    expect((await ask(pool)).body).toBe('ok')
    expect((await ask(pool)).body).toBe('ok')
    expect(origin.connections).toBe(2)
  })

  test('bytes that nobody asked for cost the connection, and are nobody’s answer', async () => {
    const intruder = sendThenWait(`${OK}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`)
    const origin = await serve((exchange) => (origin.connections > 1 ? exchange.send(OK) : intruder.script(exchange)))
    const pool = open(client, origin.url)
    expect((await ask(pool)).body).toBe('ok')
    await intruder.closed
    expect((await ask(pool)).body).toBe('ok')
    expect(origin.connections).toBe(2)
  })

  test('bytes on an idle connection cost it', async () => {
    const { promise: idle, resolve: isIdle } = deferred<RawExchange>()
    const origin = await serve(async (exchange) => {
      await exchange.send(OK)
      if (origin.connections > 1) return
      isIdle(exchange)
      await exchange.closed()
    })
    const pool = open(client, origin.url)
    expect((await ask(pool)).body).toBe('ok')
    const exchange = await idle
    await exchange.send('HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n')
    await exchange.closed()
    expect((await ask(pool)).status).toBe(200)
    expect(origin.connections).toBe(2)
  })

  test('there are never more than allowed; the rest wait in order', async () => {
    const order: string[] = []
    const waiting: (() => void)[] = []
    const hold: Script = async (exchange) => {
      order.push(exchange.target)
      await new Promise<void>((resolve) => waiting.push(resolve))
      await exchange.send(OK)
    }
    const paths = ['/0', '/1', '/2', '/3', '/4', '/5']
    const origin = await serve(hold, Object.fromEntries(paths.map((path) => [path, hold])))
    const pool = open(client, origin.url, { connections: 1 })
    const verdicts = paths.map((path) => ask(pool, { path }))
    for (const path of paths) {
      await origin.requests.find((seen) => seen.url === path, path)
      waiting.shift()!()
    }
    expect((await Promise.all(verdicts)).map((verdict) => verdict.body)).toEqual(paths.map(() => 'ok'))
    expect([origin.connections, order]).toEqual([1, paths])
  })

  test('an answer that comes before the body is taken ends the exchange and the connection', async () => {
    const { script, closed } = sendThenWait('HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno')
    const origin = await serve(script, { '/next': (exchange) => exchange.send(OK) })
    const pool = open(client, origin.url)
    const body = new Readable({ read() {} })
    body.push(Buffer.from('the first part'))
    expect(await ask(pool, { method: 'POST', body })).toMatchObject({ status: 413, body: 'no', failure: null })
    await closed
    expect((await ask(pool, { path: '/next' })).body).toBe('ok')
    expect([body.destroyed, origin.connections]).toEqual([true, 2])
  })

  test('an aborted exchange closes its connection', async () => {
    const { script, closed } = sendThenWait('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
    const origin = await serve(script, { '/next': (exchange) => exchange.send(OK) })
    const pool = open(client, origin.url)
    const sent = send(pool)
    await sent.started
    sent.controller!.abort(new Error('enough'))
    await sent.verdict
    expect(sent.error!.message).toBe('enough')
    await closed
    expect((await ask(pool, { path: '/next' })).body).toBe('ok')
  })

  test('one aborted after its end leaves the connection alone', async () => {
    const origin = await serve((exchange) => exchange.send(OK))
    const pool = open(client, origin.url)
    const sent = send(pool)
    expect((await sent.verdict).body).toBe('ok')
    sent.controller!.abort(new Error('too late'))
    await reusable()
    expect((await ask(pool)).body).toBe('ok')
    expect([origin.connections, sent.error]).toEqual([1, null])
  })

  test('close lets go of what is idle and waits for what is not', async () => {
    const { promise: told, resolve: answer } = deferred()
    const origin = await serve(
      async (exchange) => {
        await told
        await exchange.send(OK)
      },
      { '/idle': (exchange) => exchange.send(OK) },
    )
    const pool = open(client, origin.url)
    const slow = ask(pool)
    await origin.requests.take(1, () => true, 'the slow one')
    await ask(pool, { path: '/idle' })
    const closed = pool.close()
    expect((await ask(pool, { path: '/idle' })).failure).toBe('upstream_error')
    answer()
    expect((await slow).body).toBe('ok')
    await closed
  })

  test('destroy ends everything, also what waits', async () => {
    const origin = await serve((exchange) => exchange.closed())
    const pool = open(client, origin.url, { connections: 1 })
    const verdicts = [ask(pool), ask(pool)]
    await origin.requests.take(1, () => true, 'the first')
    await pool.destroy()
    for (const verdict of verdicts) expect((await verdict).failure).toMatch(/^upstream_error/)
  })
})
