// Who the caller is behind proxies that are trusted: HAProxy appends a line of its own to X-Forwarded-For, nginx goes
// on with the caller's, and a caller who sends one as well is not believed. The proxies have loopback addresses of
// their own, of which the caller's is none.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { type OtherProxy, startHaproxy, startNginx } from '../support/other-proxies.js'
import { type Answer, call } from '../support/raw-client.js'
import { requireTool } from '../support/requirements.js'

const CALLER = '127.0.0.1'
const HAPROXY = '127.0.0.2'
const NGINX = '127.0.0.3'
/** Whom the caller would like to be. */
const CLAIMED = '192.0.2.7'

let echo: Origin
let gateway: Gateway
/** Trusts the caller itself, which then speaks for a proxy. */
let direct: Gateway

beforeAll(async () => {
  echo = await startEcho()
  const route = (path: string, rest: object = {}) => ({ match: { path }, service: 'echo', auth: 'none', ...rest })
  const config = {
    services: { echo: { endpoints: [echo.url] } },
    routes: [
      route('/'),
      route('/inside', { addresses: { allow: [CLAIMED] } }),
      route('/outside', { addresses: { deny: [CALLER] } }),
      route('/limited/haproxy', { limits: [{ by: 'address', rate: '1/h', burst: 1 }] }),
      route('/limited/nginx', { limits: [{ by: 'address', rate: '1/h', burst: 1 }] }),
      route('/limited/both', { limits: [{ by: 'address', rate: '1/h', burst: 1 }] }),
    ],
  }
  gateway = await startGateway({ workers: 1, config: { ...config, trustedProxies: [HAPROXY, NGINX] } })
  direct = await startGateway({ workers: 1, config: { ...config, trustedProxies: [CALLER, HAPROXY] } })
})
afterAll(async () => {
  await gateway.close()
  await direct.close()
  await echo.close()
})

/** nginx speaks HTTP/1.0 unless it is told otherwise, which only the addon's acceptor takes (http10.test.ts). */
const FORWARD = 'proxy_http_version 1.1; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for'
const WAYS = {
  haproxy: {
    tools: ['haproxy'],
    seen: `${CLAIMED}, 198.51.100.1, ${CALLER}, ${HAPROXY}`,
    start: async () => [await startHaproxy('option forwardfor', `127.0.0.1:${gateway.port} source ${HAPROXY}`)],
  },
  nginx: {
    tools: ['nginx'],
    seen: `${CLAIMED}, 198.51.100.1, ${CALLER}, ${NGINX}`,
    start: async () => [await startNginx(`proxy_bind ${NGINX}; ${FORWARD};`, gateway.port)],
  },
  both: {
    tools: ['haproxy', 'nginx'],
    seen: `${CLAIMED}, 198.51.100.1, ${CALLER}, ${NGINX}, ${HAPROXY}`,
    start: async () => {
      const haproxy = await startHaproxy('option forwardfor', `127.0.0.1:${gateway.port} source ${HAPROXY}`)
      return [await startNginx(`proxy_bind ${NGINX}; ${FORWARD};`, haproxy.port), haproxy]
    },
  },
} as const satisfies Record<string, { tools: string[]; seen: string; start: () => Promise<OtherProxy[]> }>

test.for(Object.entries(WAYS))('behind %s the caller is who the proxy says', async ([name, way], context) => {
  for (const tool of way.tools) requireTool(context, tool)
  const proxies = await way.start()
  const ask = (target: string, ...claims: string[]): Promise<Answer> =>
    call(proxies[0]!.port, { target, headers: { 'X-Forwarded-For': claims } })
  try {
    const answer = await ask('/', CLAIMED, '198.51.100.1')
    expect((await gateway.logged(answer)).client).toBe(CALLER)
    expect(headerOf(answer.json<Seen>(), 'x-forwarded-for')).toEqual([way.seen])
    expect((await ask('/inside', CLAIMED)).status).toBe(403)
    expect((await ask('/outside', CLAIMED)).status).toBe(403)
    const limited = `/limited/${name}`
    expect((await ask(limited, CLAIMED)).status).toBe(200)
    for (const other of ['192.0.2.8', '192.0.2.9']) expect((await ask(limited, other)).status).toBe(429)
  } finally {
    for (const proxy of proxies) await proxy.close()
  }
})

describe('all lines of a field count', () => {
  const client = async (...lines: string[]): Promise<string> => {
    const answer = await call(direct.port, { headers: { 'X-Forwarded-For': lines } })
    return (await direct.logged(answer)).client
  }

  test.each([
    [['192.0.2.1', '192.0.2.2'], '192.0.2.2'],
    [['192.0.2.1, 192.0.2.2', `192.0.2.3, ${HAPROXY}`], '192.0.2.3'],
    [['192.0.2.1', HAPROXY, `${HAPROXY} , ${HAPROXY}`], '192.0.2.1'],
    [['192.0.2.1', '', HAPROXY], '192.0.2.1'],
    [['192.0.2.1', 'nobody', HAPROXY], HAPROXY],
    [['192.0.2.1', ',', HAPROXY], HAPROXY],
  ])('%j: the right-most that is no trusted proxy', async (lines, expected) => {
    expect(await client(...lines)).toBe(expected)
  })

  test('and go on to the service as one list, in order', async () => {
    const headers = {
      'X-Forwarded-For': ['192.0.2.1', '192.0.2.2, 192.0.2.3'],
      'X-Forwarded-Proto': ['https', '', 'http'],
      'X-Forwarded-Host': ['a.test', 'b.test'],
      Forwarded: ['for=192.0.2.1', 'for=192.0.2.2'],
    }
    const seen = (await call(direct.port, { host: 'demo.test', headers })).json<Seen>()
    expect(headerOf(seen, 'x-forwarded-for')).toEqual([`192.0.2.1, 192.0.2.2, 192.0.2.3, ${CALLER}`])
    expect(headerOf(seen, 'x-forwarded-proto')).toEqual(['https, http'])
    expect(headerOf(seen, 'x-forwarded-host')).toEqual(['a.test, b.test'])
    expect(headerOf(seen, 'forwarded')).toEqual([
      `for=192.0.2.1, for=192.0.2.2, for=${CALLER};host="demo.test";proto=http`,
    ])
  })
})
