// Callers known by RFC 9421 signatures: what is signed as the route wants it gets through, everything else ends at 401
// with its reason in the log alone. What is signed, byte by byte, is in test/unit/policy/signature-base.test.ts. The
// same suite runs with digests of bodies computed on the event loop, and from 16 bytes on in the digest pool.
import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { cleanEnvironment, type Gateway, runCommand, startGateway } from '../support/gateway.js'
import {
  contentDigest,
  httpSignatureKeys,
  linesOf,
  now,
  type SigningOptions,
  signedMessage,
  signMessage,
} from '../support/http-signing.js'
import { headerOf, type Origin, type Seen, sha256, startEcho } from '../support/origins.js'
import { type Answer, call, type RequestParts, unauthorized } from '../support/raw-client.js'
import { KEYS, type KeyId } from '../support/rfc9421.js'
import { signedHeaders } from '../support/signing.js'

const KEY_IDS: KeyId[] = ['test-key-rsa-pss', 'test-key-ecc-p256', 'test-key-ed25519', 'test-shared-secret']
const XM = { source: 'old', secret: 'the-secret-of-old' }

const config = (echo: string) => ({
  consumers: {
    partner: { httpSignatureKeys: httpSignatureKeys('test-key-ed25519', 'test-key-ecc-p256', 'test-shared-secret') },
    other: { httpSignatureKeys: httpSignatureKeys('test-key-rsa-pss') },
    old: { secret: XM.secret },
  },
  services: { echo: { endpoints: [echo] } },
  trustedProxies: ['127.0.0.1'],
  httpSignature: { maxAge: '60s', leeway: '5s' },
  routes: [
    { match: { path: '/' }, service: 'echo', auth: 'http-signature' },
    { match: { path: '/only-partner' }, service: 'echo', auth: 'http-signature', allow: ['partner'] },
    { match: { path: '/either' }, service: 'echo', auth: ['http-signature', 'x-m'] },
    { match: { path: '/long' }, service: 'echo', auth: 'http-signature', httpSignature: { maxAge: '1h' } },
    { match: { path: '/streamed' }, service: 'echo', auth: 'http-signature', signBody: false, maxBody: 'unlimited' },
    {
      match: { path: '/chosen' },
      service: 'echo',
      auth: 'http-signature',
      httpSignature: { components: ['@path', 'date', '@query-param;name="id"'], label: 'app', tag: 'this app' },
    },
    { match: { path: '/kept' }, service: 'echo', auth: 'http-signature', stripCredentials: false },
  ],
})

describe.each([
  ['on the event loop', '1048576'],
  ['in the pool from 16 bytes on', '16'],
])('digests computed %s', (_, offloadBytes) => {
  let echo: Origin
  let gateway: Gateway

  beforeAll(async () => {
    echo = await startEcho()
    gateway = await startGateway({
      config: config(echo.url),
      env: { TIDEGATE_HMAC_OFFLOAD_BYTES: offloadBytes },
    })
  })
  afterAll(async () => {
    await gateway.close()
    await echo.close()
  })

  const send = (request: RequestParts, options?: SigningOptions): Promise<Answer> =>
    call(gateway.port, signedMessage(request, options))

  async function admitted(request: RequestParts, options?: SigningOptions): Promise<Seen> {
    const answer = await send(request, options)
    // Lines are written in batches: only what went wrong waits for its own.
    if (answer.status !== 200) expect((await gateway.logged(answer)).reason).toBe('none: 200')
    return answer.json<Seen>()
  }

  async function refused(request: RequestParts): Promise<string | undefined> {
    const asked = echo.requests.all.length
    const answer = await call(gateway.port, request)
    expect(answer.status).toBe(401)
    expect(answer.one('www-authenticate')).toBe('Signature')
    expect(answer.json()).toEqual(unauthorized(answer))
    expect(echo.requests.all.length).toBe(asked)
    return (await gateway.logged(answer)).reason
  }

  test('a signature by any algorithm names its consumer', async () => {
    const requests = [{ target: '/a%2Fb?x=%20&y' }, { method: 'POST', target: '/', body: 'a body' }]
    const found = await Promise.all(
      KEY_IDS.flatMap((keyid) =>
        requests.map(async (request) => [keyid, (await gateway.logged(await send(request, { keyid }))).consumer]),
      ),
    )
    expect(Object.fromEntries(found)).toEqual({
      'test-key-rsa-pss': 'other',
      'test-key-ecc-p256': 'partner',
      'test-key-ed25519': 'partner',
      'test-shared-secret': 'partner',
    })
  })

  test.each([
    ['empty', ''],
    ['short', 'x'],
    ['of 16 bytes', 'sixteen bytes ok'],
    ['of 300 KB', randomBytes(300_000)],
  ])('a body that is %s arrives whole', async (_name, body) => {
    const seen = await admitted({ method: 'POST', target: '/', body })
    expect(seen.bodySha256).toBe(sha256(Buffer.from(body as string)))
    const chunked = await admitted({ method: 'POST', target: '/', chunks: body.length > 1 ? [body, 'more'] : ['more'] })
    expect(chunked.bodyBytes).toBe((body.length > 1 ? body.length : 0) + 4)
  })

  test.each([['sha-512'], ['sha-256']] as const)('a body may have %s, beside deprecated digests', async (algorithm) => {
    const body = 'a body of more than 16 bytes'
    const digest = `md5=:AAAA:, ${contentDigest(body, algorithm)}`
    const request = { method: 'POST', target: '/', body }
    await admitted({ ...request, headers: { 'content-digest': digest } }, { lines: linesOf(request, digest) })
    const keyed = contentDigest(body, algorithm).replace(/^[^=]*=/, '')
    const lines = [...linesOf(request), [`"content-digest";key="${algorithm}"`, keyed]] as const
    await admitted({ ...request, headers: { 'content-digest': digest } }, { lines })
  })

  test.each([
    ['@target-uri', [['"@target-uri"', 'http://demo.test/?a=1']], {}],
    ['@target-uri behind TLS', [['"@target-uri"', 'https://demo.test/?a=1']], { 'x-forwarded-proto': 'https' }],
    [
      '@target-uri as the last of several proxies has it',
      [['"@target-uri"', 'http://demo.test/?a=1']],
      { 'x-forwarded-proto': ['https', 'http'] },
    ],
    [
      '@request-target',
      [
        ['"@authority"', 'demo.test'],
        ['"@request-target"', '/?a=1'],
      ],
      {},
    ],
  ] as const)('the target may be covered by %s', async (_name, lines, headers) => {
    await admitted({ target: '/?a=1', headers }, { lines: [['"@method"', 'GET'], ...lines] })
  })

  test.each([
    ['UTF-8', Buffer.from('grüße').toString('latin1')],
    ['that are none', 'gr\xfc\xdfe \xff\xa0'],
  ])('over a field of bytes beyond ASCII, %s', async (_name, value) => {
    const lines = [['"x-name"', value] as const]
    const request: RequestParts = { target: '/', headers: { 'x-name': value } }
    const covered = { lines: [...linesOf(request), ...lines] }
    const encoded = `:${Buffer.from(value, 'latin1').toString('base64')}:`
    await admitted(request, covered)
    await admitted(request, { lines: [...linesOf(request), ['"x-name";bs', encoded]] })
    const other = await send({ ...request, headers: { 'x-name': `${value}\xfe` } }, covered)
    expect(other.status).toBe(401)
  })

  const GET: RequestParts = { target: '/' }
  const POST: RequestParts = { method: 'POST', target: '/', body: 'a body of more than 16 bytes' }
  const digest = contentDigest(POST.body as string)
  const signed = (options: SigningOptions = {}, request = GET) => signedMessage(request, options)
  const without = (request: RequestParts, name: string): RequestParts => ({
    ...request,
    headers: Object.fromEntries(Object.entries(request.headers ?? {}).filter(([key]) => key !== name)),
  })
  const withHeaders = (request: RequestParts, headers: Record<string, string | string[]>): RequestParts => ({
    ...request,
    headers: { ...request.headers, ...headers },
  })
  const keyid = ';keyid="test-key-ed25519"'

  const refusals: [string, () => RequestParts, string][] = [
    ['nothing', () => GET, 'signature or signature-input missing'],
    ['no signature', () => without(signed(), 'signature'), 'signature or signature-input missing'],
    ['no signature-input', () => without(signed(), 'signature-input'), 'signature or signature-input missing'],
    [
      'no dictionary',
      () => withHeaders(signed(), { 'signature-input': 'sig1=(' }),
      'signature or signature-input malformed',
    ],
    [
      'a signature in hex',
      () => withHeaders(signed(), { signature: 'sig1=abcdef' }),
      'signature or signature-input malformed',
    ],
    [
      'no list',
      () => withHeaders(signed(), { 'signature-input': `sig1=1;created=1${keyid}` }),
      'no signature with a known keyid',
    ],
    [
      'another label',
      () => withHeaders(signed(), { signature: 'sig2=:AAAA:' }),
      'signature or signature-input malformed',
    ],
    ['no keyid', () => signed({ parameters: `;created=${now()}` }), 'no signature with a known keyid'],
    [
      'an unknown keyid',
      () => signed({ parameters: `;created=${now()};keyid="x"` }),
      'no signature with a known keyid',
    ],
    [
      'a keyid that is a token',
      () => signed({ parameters: `;created=${now()};keyid=x` }),
      'no signature with a known keyid',
    ],
    [
      "another's keyid",
      () => signed({ parameters: `;created=${now()};keyid="test-key-ecc-p256"` }),
      'signature does not match',
    ],
    ['another alg', () => signed({ more: ';alg="hmac-sha256"' }), "alg differs from the key's"],
    ['no created', () => signed({ parameters: keyid }), 'signature without created'],
    [
      'a fraction as created',
      () => signed({ parameters: `;created=${now()}.5${keyid}` }),
      'signature parameters of the wrong type',
    ],
    ['text as expires', () => signed({ more: ';expires="never"' }), 'signature parameters of the wrong type'],
    ['an old one', () => signed({ parameters: `;created=${now() - 62}${keyid}` }), 'signature older than maxAge'],
    [
      'one of tomorrow',
      () => signed({ parameters: `;created=${now() + 60}${keyid}` }),
      'signature created in the future',
    ],
    ['one that expired', () => signed({ more: `;expires=${now() - 1}` }), 'signature expired'],
    ['no @method', () => signed({ lines: linesOf(GET).slice(1) }), 'signature does not cover @method'],
    [
      'no @authority',
      () =>
        signed({
          lines: [
            ['"@method"', 'GET'],
            ['"@path"', '/'],
          ],
        }),
      'signature does not cover the whole target',
    ],
    ['no @path', () => signed({ lines: linesOf(GET).slice(0, 2) }), 'signature does not cover the whole target'],
    [
      'no @query',
      () => signed({ lines: linesOf(GET) }, { target: '/?a=1' }),
      'signature does not cover the whole target',
    ],
    ['an added query', () => ({ ...signed(), target: '/?a=1' }), 'signature does not cover the whole target'],
    ['another method', () => ({ ...signed(), method: 'DELETE' }), 'signature does not match'],
    ['another path', () => ({ ...signed(), target: '/x' }), 'signature does not match'],
    ['another query', () => ({ ...signed({}, { target: '/?a=1' }), target: '/?a=2' }), 'signature does not match'],
    ['another host', () => ({ ...signed(), host: 'other.test' }), 'signature does not match'],
    [
      'a component that is not there',
      () => signed({ lines: [...linesOf(GET), ['"date"', 'x']] }),
      'signature covers "date": not in the request, or not to be read',
    ],
    [
      'a field of the answer',
      () => signed({ lines: [...linesOf(GET), ['"@status"', '200']] }),
      'signature covers "@status": not in the request, or not to be read',
    ],
    [
      'a component twice',
      () => signed({ lines: [...linesOf(GET), ['"@path"', '/']] }),
      'signature covers "@path": twice',
    ],
    [
      'an unsigned body',
      () => signed({ lines: linesOf(POST) }, POST),
      'signature does not cover the content-digest of the body',
    ],
    [
      'a body added to none',
      () => ({ ...signed(), method: 'GET', body: 'x' }),
      'signature does not cover the content-digest of the body',
    ],
    [
      'another body',
      () => ({ ...signed({}, POST), body: 'a body of as many bytes, too' }),
      'content-digest does not match the body',
    ],
    [
      'another digest',
      () => withHeaders({ ...signed({}, POST), body: 'x' }, { 'content-digest': contentDigest('x') }),
      'signature does not match',
    ],
    [
      'no body behind its digest',
      () => without({ ...signed({}, POST), body: '' }, 'none'),
      'content-digest does not match the body',
    ],
    [
      'a deprecated digest',
      () => withHeaders(signed({ lines: linesOf(POST, 'md5=:AAAA:') }, POST), { 'content-digest': 'md5=:AAAA:' }),
      'content-digest without sha-256 or sha-512',
    ],
    [
      'a deprecated digest alone covered',
      () =>
        withHeaders(signed({ lines: [...linesOf(POST), ['"content-digest";key="md5"', ':AAAA:']] }, POST), {
          'content-digest': `md5=:AAAA:, ${digest}`,
        }),
      'signature does not cover the content-digest of the body',
    ],
  ]

  test('what is not signed as the route wants it is refused, with the reason in the log', async () => {
    const found = await Promise.all(refusals.map(async ([name, request]) => [name, await refused(request())]))
    expect(Object.fromEntries(found)).toEqual(Object.fromEntries(refusals.map(([name, , reason]) => [name, reason])))
    expect(refusals.length).toBe(found.length)
  })

  test('any digit of a signature counts', async () => {
    const forged = KEY_IDS.map((id) => {
      const request = signed({ keyid: id })
      const text = request.headers!.signature as string
      const at = 'sig1=:'.length + 7
      const signature = `${text.slice(0, at)}${text[at] === 'A' ? 'B' : 'A'}${text.slice(at + 1)}`
      return refused(withHeaders(request, { signature }))
    })
    expect(new Set(await Promise.all(forged))).toEqual(new Set(['signature does not match']))
  })

  test('the ends of the time are still in it', async () => {
    await admitted(GET, { parameters: `;created=${now() - 58}${keyid}` })
    await admitted(GET, { parameters: `;created=${now() + 4}${keyid}` })
    await admitted(GET, { more: `;expires=${now() + 5};alg="ed25519";nonce="n";tag="t";x` })
    // What the route says stands before what the gateway says.
    await admitted({ target: '/long' }, { parameters: `;created=${now() - 3000}${keyid}` })
  })

  test('of several signatures the first with a known key counts', async () => {
    const mine = signMessage(linesOf(GET), { label: 'b' })
    const proxys = signMessage(linesOf(GET), { label: 'a', parameters: `;created=${now()};keyid="proxy"` })
    const both = {
      'signature-input': [proxys['signature-input'], mine['signature-input']],
      signature: `${proxys.signature}, ${mine.signature}`,
    }
    expect((await call(gateway.port, { ...GET, headers: both })).status).toBe(200)
  })

  test('a route may want components, a label and a tag of its own', async () => {
    const target = '/chosen?id=a+b&n=1'
    const date = 'Fri, 20 Nov 2026 12:00:00 GMT'
    const lines = [
      ['"@path"', '/chosen'],
      ['"date"', date],
      ['"@query-param";name="id"', 'a%20b'],
    ] as const
    const request = { target, headers: { date } }
    const options = { lines, label: 'app', more: ';tag="this app"' }
    await admitted(request, options)
    const ends = async (change: SigningOptions) => refused(signedMessage(request, { ...options, ...change }))
    expect(await ends({ lines: lines.slice(0, 2) })).toBe('signature does not cover "@query-param";name="id"')
    expect(await ends({ label: 'sig1' })).toBe('no signature with a known keyid')
    expect(await ends({ more: '' })).toBe('no signature with a known keyid')
    expect(await ends({ more: ';tag="other"' })).toBe('no signature with a known keyid')
  })

  test('a body that need not be signed streams, whatever its digest says', async () => {
    const request = { method: 'POST', target: '/streamed', body: 'streamed' }
    const seen = await admitted(request, { lines: linesOf(request) })
    expect(seen.bodyBytes).toBe(8)
    await admitted({ ...request, headers: { 'content-digest': digest } }, { lines: linesOf(request, digest) })
  })

  test('a route takes other credentials beside it', async () => {
    await admitted({ target: '/either' })
    const xm = await call(gateway.port, { target: '/either', headers: signedHeaders(XM, { target: '/either' }) })
    expect(xm.status).toBe(200)
    const neither = await call(gateway.port, { target: '/either' })
    expect(neither.all('www-authenticate')).toEqual(['Signature', 'x-m'])
  })

  test('who is known but not allowed gets 403', async () => {
    await admitted({ target: '/only-partner' })
    expect((await send({ target: '/only-partner' }, { keyid: 'test-key-rsa-pss' })).status).toBe(403)
  })

  // Once is enough: the command does not know where digests are computed.
  const signing = offloadBytes === '16' ? KEY_IDS : []
  test.each(signing)('what the command signs with %s is accepted', async (id) => {
    const key = KEYS[id]
    const material = 'secret' in key ? ['--key', key.secret, '--base64'] : ['--key', key.privateKey]
    const body = 'a body of more than 16 bytes'
    const args = ['--url', 'http://127.0.0.1/x?a=%20b', '-H', 'Host: demo.test', '--data', body]
    const { code, stdout, stderr } = await runCommand(
      ['sign', '--key-id', id, ...material, ...args],
      cleanEnvironment(),
    )
    expect({ code, stderr: stderr.text }).toEqual({ code: 0, stderr: '' })
    const lines = stdout.text.trim().split('\n')
    const headers = Object.fromEntries(lines.map((line) => line.split(/: (.*)/) as [string, string]))
    const answer = await call(gateway.port, { method: 'POST', target: '/x?a=%20b', headers, body })
    expect(answer.status).toBe(200)
  })

  test('signatures end at the gateway, unless the route keeps them', async () => {
    const seen = await admitted(GET)
    expect([headerOf(seen, 'signature'), headerOf(seen, 'signature-input')]).toEqual([[], []])
    const kept = await admitted({ target: '/kept' })
    expect(headerOf(kept, 'signature')).toEqual([expect.stringMatching(/^sig1=:/)])
  })
})
