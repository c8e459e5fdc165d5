// Requests that share connections, which only the lean client does: nobody gets another's answer, and nobody waits for
// long behind somebody else's slow one.
import type { Dispatcher } from 'undici'
import { describe, expect, test } from 'vitest'
import type { Origin, RawExchange, Script } from '../../support/origins.js'
import { leans, type UpstreamClient } from '../../support/upstream-clients.js'
import { open, serve } from '../../support/upstream-contract.js'
import { ask, send } from '../../support/upstream-verdict.js'

const paths = (count: number): string[] => Array.from({ length: count }, (_, i) => `/${i}`)

const echo = (exchange: RawExchange): Promise<void> => exchange.answer(200, {}, `${exchange.method} ${exchange.target}`)

/** Answers any path with itself; `scripts` for those that do not. */
async function startWith(
  lean: UpstreamClient,
  scripts: Record<string, Script>,
  pipelining = 32,
): Promise<{ origin: Origin; pool: Dispatcher }> {
  const origin = await serve(echo, { ...Object.fromEntries(paths(64).map((path) => [path, echo])), ...scripts })
  return { origin, pool: open(lean, origin.url, { pipelining }) }
}

function bodies(pool: Dispatcher, targets: readonly string[]): Promise<(string | null)[]> {
  return Promise.all(targets.map(async (path) => (await ask(pool, { path })).body))
}

const own = (targets: readonly string[]): string[] => targets.map((path) => `GET ${path}`)

/** A path whose answer waits until it is told. */
function gate(): { script: Script; answer: (text?: string) => void; asked: () => number } {
  const waiting: ((text: string) => void)[] = []
  let asked = 0
  return {
    asked: () => asked,
    answer: (text = 'at last') => {
      for (const one of waiting.splice(0)) one(text)
    },
    script: async (exchange) => {
      asked++
      const text = await new Promise<string>((resolve) => waiting.push(resolve))
      await exchange.answer(200, {}, text).catch(() => {})
    },
  }
}

describe.each(leans)('requests that share connections, in $name', (lean) => {
  const start = (scripts: Record<string, Script>, pipelining?: number) => startWith(lean, scripts, pipelining)

  test('one connection takes as many as it may, and each gets its own answer', async () => {
    const { origin, pool } = await start({}, 8)
    expect(await bodies(pool, paths(20))).toEqual(own(paths(20)))
    // Three; and some more where this process was without a core for 20 ms: an answer that is late by as much is not
    // waited behind.
    const shared = origin.connections
    expect(shared).toBeGreaterThanOrEqual(3)
    expect(shared).toBeLessThan(10)
    expect(await bodies(pool, paths(8))).toEqual(own(paths(8)))
    expect(origin.connections).toBeLessThan(shared + 4)
  })

  test('answers in any split find whom they are for', async () => {
    const trickle: Script = async (exchange) => {
      const text = `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${'1\r\nx\r\n'.repeat(5)}0\r\n\r\n`
      for (const byte of text) await exchange.send(byte)
    }
    const { pool } = await start({ '/trickle': trickle })
    expect(await bodies(pool, ['/1', '/trickle', '/2', '/trickle', '/3'])).toEqual([
      'GET /1',
      'xxxxx',
      'GET /2',
      'xxxxx',
      'GET /3',
    ])
  })

  test('what must not be repeated, or has a body, travels alone', async () => {
    const { origin, pool } = await start({})
    const verdicts = await Promise.all([
      ask(pool, { path: '/1' }),
      ask(pool, { path: '/2', method: 'POST' }),
      ask(pool, { path: '/3' }),
      ask(pool, { path: '/4', method: 'PUT', body: Buffer.from('x') }),
    ])
    expect(verdicts.map((verdict) => verdict.status)).toEqual([200, 200, 200, 200])
    expect(origin.connections).toBe(3)
  })

  test('a slow answer does not hold those behind it', async () => {
    const slow = gate()
    const { origin, pool } = await start({ '/slow': slow.script })
    expect(await bodies(pool, paths(4))).toEqual(own(paths(4)))
    const first = ask(pool, { path: '/slow' })
    expect(await bodies(pool, paths(10))).toEqual(own(paths(10)))
    expect([slow.asked(), origin.connections > 1]).toEqual([1, true])
    slow.answer()
    expect((await first).body).toBe('at last')
    expect(await bodies(pool, paths(10))).toEqual(own(paths(10)))
  })

  test('nor do those that come later wait behind it', async () => {
    const slow = gate()
    const { pool } = await start({ '/slow': slow.script })
    await bodies(pool, paths(4))
    const first = ask(pool, { path: '/slow' })
    await bodies(pool, paths(1))
    expect(await bodies(pool, paths(32))).toEqual(own(paths(32)))
    slow.answer()
    expect((await first).body).toBe('at last')
  })

  test('where all are slow, none waits for another’s answer', async () => {
    const slow = gate()
    const { pool, origin } = await start({ '/slow': slow.script })
    const verdicts = Promise.all(Array.from({ length: 6 }, () => ask(pool, { path: '/slow' })))
    await origin.requests.take(6, () => true, 'all six')
    slow.answer()
    expect((await verdicts).map((verdict) => verdict.body)).toEqual(Array(6).fill('at last'))
  })

  test('a connection that is lost costs the first request alone; the others are sent again', async () => {
    let lost = 0
    const { origin, pool } = await start({
      '/lost': (exchange) => {
        lost++
        exchange.reset()
      },
    })
    const first = ask(pool, { path: '/lost' })
    expect(await bodies(pool, paths(5))).toEqual(own(paths(5)))
    expect(await first).toMatchObject({ failure: 'upstream_error, lost' })
    expect([lost, origin.connections > 1]).toEqual([1, true])
  })

  test('an answer that ends the connection leaves nobody behind', async () => {
    const { pool } = await start({
      '/last': async (exchange) => {
        await exchange.send('HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlast')
        await exchange.closed()
      },
    })
    expect(await bodies(pool, ['/1', '/last', '/2', '/3'])).toEqual(['GET /1', 'last', 'GET /2', 'GET /3'])
  })

  test('nonsense fails the request it answers, and no other', async () => {
    const { pool } = await start({ '/nonsense': (exchange) => exchange.send('HTTP/1.1 nonsense\r\n\r\n') })
    const verdicts = await Promise.all(['/1', '/nonsense', '/2'].map((path) => ask(pool, { path })))
    expect(verdicts.map(({ body, failure }) => failure ?? body)).toEqual(['GET /1', 'upstream_error', 'GET /2'])
  })

  test('an aborted request behind others costs nobody anything', async () => {
    const slow = gate()
    const { origin, pool } = await start({ '/slow': slow.script })
    const first = ask(pool, { path: '/slow' })
    const aborted = send(pool, { path: '/1' })
    await origin.requests.take(1, () => true, 'the slow one')
    aborted.controller!.abort(new Error('enough'))
    slow.answer()
    expect((await aborted.verdict).failure).not.toBeNull()
    expect((await first).body).toBe('at last')
    expect(await bodies(pool, paths(3))).toEqual(own(paths(3)))
  })

  test('those behind an aborted request are sent again', async () => {
    const slow = gate()
    const { origin, pool } = await start({ '/slow': slow.script })
    const first = send(pool, { path: '/slow' })
    const behind = bodies(pool, paths(3))
    await origin.requests.take(1, () => true, 'the slow one')
    first.controller!.abort(new Error('enough'))
    expect(await behind).toEqual(own(paths(3)))
    expect((await first.verdict).failure).not.toBeNull()
  })

  test('a reader that pauses holds nobody else', async () => {
    const big = Buffer.alloc(4_194_304, 'x').toString()
    const { pool } = await start({ '/big': (exchange) => exchange.answer(200, {}, big) })
    await bodies(pool, paths(4))
    let controller!: Dispatcher.DispatchController
    const first = send(pool, { path: '/big' }, (_, own) => {
      if (controller === undefined) own.pause()
      controller = own
    })
    expect(await bodies(pool, paths(10))).toEqual(own(paths(10)))
    controller.resume()
    expect((await first.verdict).body.length).toBe(big.length)
  })
})
