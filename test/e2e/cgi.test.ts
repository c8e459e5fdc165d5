// Services that get fields as variables of an environment (RFC 3875, 4.1.18), where `X.Consumer!Username` and
// `X-Consumer-Username` are the same one: what a client calls so must not take the place of what the gateway says.
import { createHash } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Gateway, startGateway } from '../support/gateway.js'
import { headerOf, type Origin, type Seen, startEcho } from '../support/origins.js'
import { startLighttpd, startWsgiref } from '../support/other-proxies.js'
import { type Answer, call, type RequestParts } from '../support/raw-client.js'
import { requireTool } from '../support/requirements.js'
import { signedHeaders, TEST } from '../support/signing.js'

const KEY = 'key-of-the-consumer-test'
const KEPT_KEY = `sha256:${createHash('sha256').update(KEY).digest('hex')}`
const FORGED = 'forged'
/** All that RFC 9110, 5.6.2 lets into a name besides letters, digits and the hyphen. */
const MARKS = [..."!#$%&'*+.^_`|~"]

async function gatewayTo(endpoint: string, rest: object = {}): Promise<Gateway> {
  const match = (path: string) => ({ match: { path }, service: 'cgi' })
  return startGateway({
    workers: 1,
    secrets: [KEY],
    config: {
      services: { cgi: { endpoints: [endpoint] } },
      consumers: { test: { apiKeys: [KEPT_KEY], secret: TEST.secret } },
      apiKeys: { header: 'x-api-key' },
      routes: [
        { ...match('/env'), auth: 'api-key' },
        { ...match('/env/signed'), auth: 'x-m' },
        { ...match('/env/open'), auth: 'none' },
      ],
      ...rest,
    },
  })
}

/** The forged names, each with every one of `marks` in place of its hyphens, and a mixture. */
function forgedFields(names: readonly string[], marks: readonly string[]): Record<string, string> {
  const spellings = names.flatMap((name) => [
    ...marks.map((mark) => name.replaceAll('-', mark)),
    ...marks.map((mark) => name.replace('-', mark)),
  ])
  return Object.fromEntries(spellings.map((name) => [name, FORGED]))
}

const variable = (answer: Answer, name: string): string | undefined =>
  answer.text
    .split('\n')
    .find((line) => line.startsWith(`${name}=`))
    ?.slice(name.length + 1)

const VOUCHED = ['X-Consumer-Username', 'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Forwarded-Host', 'X-Rid']

test.for([
  ['lighttpd', 'lighttpd', startLighttpd, {}],
  ['lighttpd, names with _ allowed', 'lighttpd', startLighttpd, { underscoresInHeaders: 'allow' }],
  ['Python, names with _ allowed', 'python3', startWsgiref, { underscoresInHeaders: 'allow' }],
] as const)('%s: nobody gives the gateway’s variables other values', async ([, tool, start, rest], context) => {
  requireTool(context, tool)
  const server = await start()
  const gateway = await gatewayTo(`http://127.0.0.1:${server.port}`, rest)
  const ask = async (target: string, headers: Record<string, string>): Promise<Answer> => {
    const answer = await call(gateway.port, { target, headers })
    expect(answer.status).toBe(200)
    return answer
  }
  try {
    for (const mark of MARKS) {
      const known = await ask('/env', { ...forgedFields(VOUCHED, [mark]), 'X-Api-Key': KEY, 'X-Kept': '1' })
      expect(variable(known, 'HTTP_X_CONSUMER_USERNAME')).toBe('test')
      expect(variable(known, 'HTTP_X_FORWARDED_FOR')).toBe('127.0.0.1')
      expect(variable(known, 'HTTP_X_RID')).toBe(known.rid)
      expect(variable(known, 'HTTP_X_KEPT')).toBe('1')
      expect(known.text).not.toContain(FORGED)
    }
    const unknown = await ask('/env/open', forgedFields(['X-Consumer-Username'], MARKS))
    expect(variable(unknown, 'HTTP_X_CONSUMER_USERNAME')).toBeUndefined()

    const target = '/env/signed'
    const names = ['X-Source', 'X-Time', 'X-M']
    const signed = await ask(target, { ...forgedFields(names, MARKS), ...signedHeaders(TEST, { target }) })
    expect(variable(signed, 'HTTP_X_SOURCE')).toBe('test')
    expect(variable(signed, 'HTTP_X_M')).toBeUndefined()
    expect(signed.text).not.toContain(FORGED)
  } finally {
    await gateway.close()
    await server.close()
  }
})

describe('names in other characters than letters, digits and hyphens', () => {
  let echo: Origin
  let gateway: Gateway
  beforeAll(async () => {
    echo = await startEcho()
    gateway = await gatewayTo(echo.url)
  })
  afterAll(async () => {
    await gateway.close()
    await echo.close()
  })

  const seen = async (parts: RequestParts): Promise<Seen> => (await call(gateway.port, parts)).json<Seen>()

  test('are passed on where they are like none of the gateway’s', async () => {
    const request = await seen({ target: '/env/open', headers: { 'X.Y!z': '1', "It's~": '2', 'X.Source': '3' } })
    expect(headerOf(request, 'x.y!z')).toEqual(['1'])
    expect(headerOf(request, "it's~")).toEqual(['2'])
    // Nothing is checked by x-source here: it is the client's own.
    expect(headerOf(request, 'x.source')).toEqual(['3'])
  })

  test('are dropped where they are like a credential that is taken off, or a field of this hop', async () => {
    const headers = {
      'X-Api-Key': KEY,
      'X.Api.Key': FORGED,
      'Transfer.Encoding': FORGED,
      'Content.Length': FORGED,
      "X'Api-Key": FORGED,
    }
    const request = await seen({ target: '/env', headers })
    expect(request.rawHeaders).not.toContain(FORGED)
    expect(request.rawHeaders).not.toContain(KEY)
  })
})
