// A request's head as the gate reads it for us, against what uWS makes of the same bytes: whatever uWS lets through,
// both must mean the same by it, for uWS decides where the body is and we decide everything else.
import { once } from 'node:events'
import { connect } from 'node:net'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { native } from '../../native/index.js'
import { accept } from '../../src/downstream/uws/accept.js'
import { guard, headMarks, openGate, readHead } from '../../src/downstream/uws/gate.js'
import { uWS } from '../../src/downstream/uws/load.js'
import { Fields, NUMBERED } from '../../src/exchange/fields.js'
import { turns } from '../support/waiting.js'

interface Reading {
  readonly method: string
  readonly path: string
  readonly query: string | undefined
  readonly pairs: readonly string[]
}

let app: ReturnType<typeof uWS.App>
let port = 0
/** Of each request: uWS's reading, and ours; null where no gate read it. */
const seen: { readonly theirs: Reading; readonly ours: Reading | null }[] = []

beforeAll(async () => {
  expect(
    openGate(new Float64Array(12), { headerTimeoutMs: 10_000, idleTimeoutMs: 10_000, maxHeaderBytes: 16_384 }),
  ).toBe('')
  app = uWS.App()
  guard(app, false, false)
  app.any('/*', (res, req) => {
    const pairs: string[] = []
    // It has decoded them.
    req.forEach((name, value) => pairs.push(name, Buffer.from(value, 'utf8').toString('latin1')))
    const theirs = { method: req.getCaseSensitiveMethod(), path: req.getUrl(), query: req.getQuery(), pairs }
    const readByGate = readHead() !== null
    const { method, path, query, hasQuery, headers } = accept(res, req, 0)
    const ours = { method, path, query: hasQuery ? query : undefined, pairs: headers }
    seen.push({ theirs, ours: readByGate ? ours : null })
    res.end('', true)
  })
  port = await new Promise((resolve) => {
    app.listen('127.0.0.1', 0, (socket) => resolve(socket ? uWS.us_socket_local_port(socket) : 0))
  })
})

afterAll(() => app?.close())

/** uWS takes bytes over 127 at either end of a value for blanks. */
function asUwsDoes(pairs: readonly string[]): string[] {
  return pairs.map((text) => text.replace(/^[^!-\x7f]+|[^!-\x7f]+$/g, ''))
}

async function send(...parts: string[]): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  socket.resume().on('error', () => {})
  const closed = once(socket, 'close')
  for (const part of parts) {
    socket.write(part, 'latin1')
    if (parts.length > 1) await turns(1)
  }
  await closed
}

const token = fc.stringMatching(/^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}$/)
const name = fc
  .oneof(token, fc.constantFrom(...NUMBERED, 'Host', 'X-Source', 'x_m', 'USER-AGENT'))
  .filter((one) => !/^(content-length|transfer-encoding|connection)$/i.test(one))
const value = fc
  .array(fc.oneof(fc.stringMatching(/^[\x20-\x7e\t]{0,30}$/), fc.constantFrom('é', 'ß→', ':', '\x7f', ' ', '\t')))
  .map((parts) => Buffer.from(parts.join('')).toString('latin1'))
const blanks = fc.stringMatching(/^[ \t]{0,3}$/)
const line = fc.tuple(name, blanks, value, blanks).map(([n, before, v, after]) => `${n}:${before}${v}${after}\r\n`)
const target = fc.stringMatching(/^\/[!-~]{0,40}$/)
const method = fc.constantFrom('GET', 'GETS', 'POST', 'DELETE', 'M-SEARCH')

test.skipIf(native === null)('the gate reads in a head what uWS does, in any split', { timeout: 60_000 }, async () => {
  let read = 0
  await fc.assert(
    fc.asyncProperty(method, target, fc.array(line, { maxLength: 12 }), fc.nat(400), async (verb, path, lines, at) => {
      seen.length = 0
      const head = `${verb} ${path} HTTP/1.1\r\nHost: demo.test\r\n${lines.join('')}\r\n`
      await (at < head.length ? send(head.slice(0, at), head.slice(at)) : send(head))
      for (const { theirs, ours } of seen) {
        expect(ours).toEqual({ ...theirs, pairs: expect.anything() })
        expect(asUwsDoes(ours!.pairs)).toEqual(asUwsDoes(theirs.pairs))
        read++
      }
    }),
    { numRuns: 400 },
  )
  // Most of them are such as uWS takes.
  expect(read).toBeGreaterThan(200)
})

test.skipIf(native === null)('lines go on as the service gets them: one blank behind the colon', async () => {
  let text = ''
  const before = seen.length
  app.get('/tidy', (res) => {
    const fields = Fields.ofHead(readHead()!, headMarks())
    for (let i = 0; i < fields.marks.length; i += 4)
      text += fields.text.substring(fields.marks[i + 1]!, fields.marks[i + 3]!)
    res.end('', true)
  })
  await send('GET /tidy HTTP/1.1\r\nHost:demo.test\r\nX-A: \t one\t\r\nX-B:\r\n\r\n')
  expect(text).toBe('host: demo.testx-a: onex-b: ')
  expect(seen.length).toBe(before)
})
