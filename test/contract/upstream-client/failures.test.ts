// Upstreams that fail: how soon each client knows, and what it says of it.
import { errors } from 'undici'
import { describe, expect, test } from 'vitest'
import { refusingPort, type Script, startDeaf } from '../../support/origins.js'
import { clients } from '../../support/upstream-clients.js'
import { finallyDo, lost, open, refused, serve } from '../../support/upstream-contract.js'
import { ask, send } from '../../support/upstream-verdict.js'

describe.each(clients)('an upstream that fails, as $name sees it', (client) => {
  test('nonsense is known at once, not when the connection ends', async () => {
    const origin = await serve(async (exchange) => {
      await exchange.send('220 mail.example ESMTP\r\n')
      await exchange.closed()
    })
    expect(await ask(open(client, origin.url))).toMatchObject(refused)
  })

  test('a reset is a failure wherever it comes', async () => {
    const reset =
      (bytes: string): Script =>
      async (exchange) => {
        await exchange.send(bytes)
        exchange.reset()
      }
    const origin = await serve(reset(''), {
      '/head': reset('HTTP/1.1 200 OK\r\nX: '),
      '/body': reset('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n'),
    })
    const pool = open(client, origin.url)
    expect(await ask(pool)).toMatchObject(lost)
    expect(await ask(pool, { path: '/head' })).toMatchObject(lost)
    expect((await ask(pool, { path: '/body' })).failure).toContain('upstream_error')
  })

  test('no connection, no answer', async () => {
    const verdict = await ask(open(client, `http://127.0.0.1:${await refusingPort()}`))
    expect(verdict).toMatchObject({ status: 0, failure: 'upstream_error, not reached' })
  })

  test('a connection that is not accepted in time', async () => {
    const deaf = await startDeaf()
    finallyDo(() => deaf.close())
    const sent = send(open(client, `http://127.0.0.1:${deaf.port}`, { connectTimeoutMs: 100 }))
    expect(await sent.verdict).toMatchObject({ failure: 'upstream_timeout, not reached' })
    expect(sent.error).toBeInstanceOf(errors.ConnectTimeoutError)
  })
})
