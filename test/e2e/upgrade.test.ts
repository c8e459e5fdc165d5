// What the gateway does not speak: a WebSocket handshake and TRACE are refused, and in the log; other offers of a
// protocol are ignored, as clients expect that make them by default (RFC 9110, 7.8).
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireAcceptor, requireTool } from '../support/requirements.js'

const HANDSHAKE = { 'Sec-WebSocket-Key': 'dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version': '13' }

let echo: Origin
let gateway: Gateway
beforeAll(async () => {
  echo = await startEcho()
  const route = (path: string, rest: object = {}) => ({ match: { path, ...rest }, service: 'echo', auth: 'none' })
  gateway = await startGateway({
    workers: 1,
    config: {
      services: { echo: { endpoints: [echo.url] } },
      routes: [route('/'), route('/traced', { methods: ['GET', 'TRACE'] })],
    },
  })
})
afterAll(async () => {
  await gateway.close()
  await echo.close()
})

describe('a WebSocket handshake', () => {
  test.each([
    ['as browsers send it', { Connection: 'Upgrade', Upgrade: 'websocket' }],
    ['in any case and in a list', { Connection: 'keep-alive, UPGRADE', Upgrade: 'h2c, WebSocket' }],
    ['with a version', { Connection: 'upgrade', Upgrade: 'websocket/13' }],
    ['over several lines', { Connection: ['keep-alive', 'upgrade'], Upgrade: ['h2c', 'websocket'] }],
  ])('%s is refused, logged, and its connection closed', async (_, fields) => {
    const before = echo.requests.all.length
    const connection = await Connection.open(gateway.port)
    const answer = await connection.exchange({ target: '/chat', headers: { ...HANDSHAKE, ...fields } })
    expect(answer.status).toBe(400)
    expect(answer.json()).toMatchObject({ code: 'bad_request', rid: answer.rid })
    expect(await gateway.logged(answer)).toMatchObject({
      status: 400,
      path: '/chat',
      code: 'bad_request',
      reason: 'WebSocket is not served',
    })
    await connection.closedByPeer()
    expect(echo.requests.all.length).toBe(before)
  })

  test('of HTTP/1.0 is none: its Upgrade is ignored', async (context) => {
    requireAcceptor(context)
    const headers = { ...HANDSHAKE, Connection: 'Upgrade', Upgrade: 'websocket' }
    const answer = await call(gateway.port, { version: '1.0', headers })
    expect(answer.status).toBe(200)
    expect(headerOf(answer.json<Seen>(), 'upgrade')).toEqual([])
  })
})

describe('another protocol that is offered', () => {
  test.each([
    ['h2c', { Connection: 'Upgrade, HTTP2-Settings', Upgrade: 'h2c', 'HTTP2-Settings': 'AAMAAABkAAQAoAAAAAIAAAAA' }],
    ['TLS/1.0', { Connection: 'Upgrade', Upgrade: 'TLS/1.0' }],
    ['websockets-of-another-kind', { Connection: 'Upgrade', Upgrade: 'websockets-of-another-kind, x-websocket' }],
    ['websocket without Connection: upgrade', { Upgrade: 'websocket' }],
  ])('%s is ignored, and stays on its hop', async (_, headers) => {
    const answer = await call(gateway.port, { headers })
    expect(answer.status).toBe(200)
    expect(await gateway.logged(answer)).toMatchObject({ status: 200 })
    const request = answer.json<Seen>()
    for (const name of ['upgrade', 'http2-settings']) expect(headerOf(request, name)).toEqual([])
  })

  test('by curl --http2 is served in HTTP/1.1', async (context) => {
    requireTool(context, 'curl')
    const args = [
      '-s',
      '--http2',
      '-d',
      'a body',
      '-w',
      '\n%{http_code} %{http_version}',
      `http://127.0.0.1:${gateway.port}/`,
    ]
    const { stdout } = await promisify(execFile)('curl', args)
    expect(stdout.split('\n').at(-1)).toBe('200 1.1')
  })
})

describe('TRACE', () => {
  test('is not passed on', async () => {
    const before = echo.requests.all.length
    const answer = await call(gateway.port, { method: 'TRACE', target: '/x', headers: { Cookie: 'a=1' } })
    expect(answer.status).toBe(501)
    expect(answer.json()).toMatchObject({ code: 'not_implemented', title: 'Not Implemented' })
    expect(await gateway.logged(answer)).toMatchObject({
      status: 501,
      route: '/',
      code: 'not_implemented',
      reason: 'TRACE is served by routes that name it',
    })
    expect(echo.requests.all.length).toBe(before)
  })

  test('is where a route names it', async () => {
    const answer = await call(gateway.port, { method: 'TRACE', target: '/traced' })
    expect(answer.status).toBe(200)
    expect(answer.json<Seen>().method).toBe('TRACE')
  })
})
