// The longest request of each kind that the gateway takes, written so that careless code pays most for it, and a
// configuration under which every phase reads it. test/long/linear.test.ts holds what each costs a worker,
// test/long/worst-inputs.test.ts sends all of them at once. Bytes are written as latin1: a character is a byte.

/** TIDEGATE_MAX_HEADER_BYTES' default, less some for what stands around the part that is long. */
const HEAD_BYTES = 16_384
export const LONG = HEAD_BYTES - 600
/** uWebSockets.js takes no more fields, Host among them. */
const MOST_FIELDS = 97

const KEYID = 'worst'
const SECRET = 'the-secret-of-the-worst-input-of-all'
const b64 = (json) => Buffer.from(typeof json === 'string' ? json : JSON.stringify(json)).toString('base64url')
export const long = (piece, bytes = LONG) => piece.repeat(Math.floor(bytes / piece.length))
export const fields = (name, value) => `${name}: ${value}\r\n`
export const lines = (count, line) => Array.from({ length: count }, (_, i) => line(i)).join('')

export function configFor(endpoint) {
  const route = (path, auth, more = {}) => ({ match: { path }, service: 'origin', auth, ...more })
  return {
    trustedProxies: ['127.0.0.1', '::1'],
    apiKeys: { query: 'api_key' },
    consumers: {
      alice: {
        secret: SECRET,
        password: `sha256:${'0'.repeat(64)}`,
        jwt: { acme: 'alice' },
        apiKeys: `sha256:${'0'.repeat(64)}`,
        httpSignatureKeys: { [KEYID]: { algorithm: 'hmac-sha256', secret: SECRET } },
      },
    },
    jwt: { acme: { issuer: 'acme', audience: 'gateway', secrets: SECRET } },
    limits: { calls: { rate: '1000000000/h', by: ['address', 'header:cookie'] } },
    services: { origin: { endpoints: [endpoint] }, undici: { endpoints: [endpoint], client: 'undici' } },
    routes: [
      route('/', 'none', { logQuery: true, limits: ['calls'], addresses: { deny: ['192.0.2.0/24', '2001:db8::/32'] } }),
      { match: { path: '/', host: '*.demo.test' }, service: 'origin', auth: 'none' },
      route('/a/:b/c', 'none', { match: { path: '/a/:b/c', headers: { 'x-picks': 'one', cookie: 'none' } } }),
      { match: { path: '/undici' }, service: 'undici', auth: 'none', stripPrefix: true },
      route('/xm', 'x-m'),
      route('/signed', 'http-signature'),
      route('/key', 'api-key'),
      route('/basic', 'basic'),
      route('/jwt', 'jwt'),
      route('/any', ['x-m', 'http-signature', 'api-key', 'basic', 'jwt']),
    ],
  }
}

const get = (target, head, host = 'demo.test') => `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${head}\r\n`
const post = (head, body) => `POST / HTTP/1.1\r\nHost: demo.test\r\n${head}\r\n${body}`
const chunked = (body) => post('Transfer-Encoding: chunked\r\n', body)

const signed = (input, more = '', target = '/signed') =>
  get(target, `${more}${fields('Signature-Input', input)}${fields('Signature', 's=:AAAA:')}`)
const covering = (components, keyid = KEYID) =>
  `s=(${components});created=${Math.floor(Date.now() / 1000)};keyid="${keyid}"`
const TARGET = '"@method" "@target-uri"'
const bearer = (claims, header = { alg: 'HS256' }) =>
  get('/jwt', fields('Authorization', `Bearer ${b64(header)}.${b64(claims)}.${'A'.repeat(43)}`))
const claims = (more) => `{"iss":"acme","aud":"gateway","exp":99999999999,${more}}`
/** What a list is made of, or a value, where somebody may look for its end, its parts or its blanks. */
const VALUES = {
  'of one word': long('a'),
  'of blanks inside': `a${long(' ')}a`,
  'of tabs inside': `a${long('\t')}a`,
  'of a list': `${long('a,')}a`,
  'of commas': long(','),
  'of commas and blanks': `a${long(' ,')}a`,
  'of short words and blanks': `${long('ab, ')}a`,
  'of semicolons': `a${long(';b')}`,
  'of quotes': `a="${long('\\"')}"`,
  'of escapes': long('%41'),
  'of UTF-8': long('é'.replace('é', '\xc3\xa9')),
}
/** Fields that some phase reads, and a few that none does. */
const READ = [
  'X-Nobody-Reads',
  'Accept',
  'Expect',
  'Upgrade',
  'Cookie',
  'Connection',
  'TE',
  'Trailer',
  'Via',
  'Forwarded',
  'X-Forwarded-For',
  'X-Forwarded-Proto',
  'X-Forwarded-Host',
  'Traceparent',
  'Tracestate',
  'Range',
  'X-Rid',
]

/** Whole requests, by name. */
export function worstRequests() {
  const all = []
  const add = (name, text) => all.push({ name, bytes: Buffer.from(text, 'latin1') })
  for (const field of READ) {
    for (const [kind, value] of Object.entries(VALUES)) add(`${field} ${kind}`, get('/', fields(field, value)))
  }
  // The target.
  add('path of one segment', get(`/${long('a')}`, ''))
  add('path of segments', get(long('/a'), ''))
  add('path of slashes', get(long('/'), ''))
  add('path of dots', get(long('/.'), ''))
  add('path up and down', get(long('/a/..'), ''))
  add('path of escapes', get(long('/%61'), ''))
  add('path of escapes that stay', get(long('/%C3'), ''))
  add('path of hidden dots, nearly', get(`${long('/..a')}/%2e`, ''))
  for (const path of ['/', '/key', '/any']) {
    add(`query of parameters at ${path}`, get(`${path}?${long('a&')}`, ''))
    add(`query of escapes at ${path}`, get(`${path}?${long('%61')}`, ''))
    add(`query of bad escapes at ${path}`, get(`${path}?${long('%&')}`, ''))
    add(`query of bad UTF-8 at ${path}`, get(`${path}?${long('api_k%ff&')}`, ''))
    add(`query of the key, nearly, at ${path}`, get(`${path}?${long('%61pi_kex=%ff&')}`, ''))
    add(`query of the key, many times, at ${path}`, get(`${path}?${long('api_key=%ff&')}`, ''))
  }
  add('host of one label', get('/', '', long('a')))
  add('host of labels', get('/', '', `${long('a.')}demo.test`))
  add('host of dots', get('/', '', long('.')))
  add('host of an address', get('/', '', `[${long('1:')}:]`))
  // Fields, as many as there may be.
  const wide = Math.floor(LONG / MOST_FIELDS) - 10
  add(
    'many fields',
    get(
      '/',
      lines(MOST_FIELDS, (i) => fields(`x-${i}`, 'a'.repeat(wide))),
    ),
  )
  add(
    'many fields of one name',
    get(
      '/',
      lines(MOST_FIELDS, () => fields('x-a', 'a'.repeat(wide))),
    ),
  )
  add(
    'many Cookie fields',
    get(
      '/',
      lines(MOST_FIELDS, () => fields('cookie', 'a=b; '.repeat(wide / 5))),
    ),
  )
  add(
    'many underscores',
    get(
      '/',
      lines(MOST_FIELDS, (i) => fields(`x_${i}`, 'a'.repeat(wide))),
    ),
  )
  add(
    'many blanks',
    get(
      '/',
      lines(MOST_FIELDS, (i) => fields(`x-${i}`, `${' '.repeat(wide)}a`)),
    ),
  )
  add(
    'many bytes above ASCII',
    get(
      '/',
      lines(MOST_FIELDS, (i) => fields(`x-${i}`, '\xc3\xa9'.repeat(wide / 2))),
    ),
  )
  for (const field of ['Connection', 'Via', 'Forwarded', 'X-Forwarded-For', 'Tracestate', 'Traceparent']) {
    add(
      `many ${field} fields`,
      get(
        '/',
        lines(MOST_FIELDS, () => fields(field, 'a,'.repeat((wide - field.length) / 2))),
      ),
    )
  }
  const names = lines(60, (i) => fields(`x-${i}`, 'a'))
  add('Connection and many fields', get('/', names + fields('Connection', long('ab,', LONG - names.length))))
  add(
    'Connection of names',
    get(
      '/',
      names +
        fields(
          'Connection',
          lines(1700, (i) => `x-${i}, `),
        ),
    ),
  )
  add('X-Forwarded-For of trusted hops', get('/', fields('X-Forwarded-For', `${long('::1,')}::1`)))
  add('X-Forwarded-For of trusted IPv4', get('/', fields('X-Forwarded-For', `${long('127.0.0.1, ')}127.0.0.1`)))
  add('X-Forwarded-For of no address', get('/', fields('X-Forwarded-For', long('1:'))))
  add('X-Forwarded-For of digits', get('/', fields('X-Forwarded-For', long('0'))))
  // Credentials.
  for (const path of ['/xm', '/any']) {
    const xm = (source, mac) => fields('x-source', source) + fields('x-time', '1') + fields('x-m', mac)
    add(`x-source at ${path}`, get(path, xm(long('a'), 'a')))
    add(`x-m at ${path}`, get(path, xm('alice', long('a'))))
    add(
      `x-m over a query at ${path}`,
      get(
        `${path}?${long('a=b&')}`,
        fields('x-source', 'alice') + fields('x-time', Math.floor(Date.now() / 1000)) + fields('x-m', 'a'.repeat(64)),
      ),
    )
  }
  add('API key', get('/key', fields('x-api-key', long('a'))))
  add(
    'API keys',
    get(
      '/key',
      lines(MOST_FIELDS, () => fields('x-api-key', 'a'.repeat(wide - 20))),
    ),
  )
  add('Basic', get('/basic', fields('Authorization', `Basic ${long('YWE6')}`)))
  add('Basic and blanks', get('/basic', fields('Authorization', `Basic ${long(' ')}YWE6`)))
  add('Basic, blanks and no end', get('/basic', fields('Authorization', `Basic YWE6${long(' ')}!`)))
  add('Basic of padding', get('/basic', fields('Authorization', `Basic ${long('=')}`)))
  add('Bearer of one part', get('/jwt', fields('Authorization', `Bearer ${long('a')}`)))
  add('Bearer of parts', get('/jwt', fields('Authorization', `Bearer ${long('a.')}`)))
  add('Bearer and blanks', get('/jwt', fields('Authorization', `Bearer a.b.c${long(' ')}!`)))
  const json = Math.floor((LONG - 500) * 0.75)
  add('token of a long claim', bearer(claims(`"sub":"${long('a', json - 100)}"`)))
  add('token of claims', bearer(claims(`${lines(1000, (i) => `"a${i}":0,`)}"sub":"a"`)))
  add('token of nested claims', bearer(claims(`"sub":${'['.repeat(json / 2 - 100)}${']'.repeat(json / 2 - 100)}`)))
  add('token of audiences', bearer(claims(`"sub":"a","aud":[${long('"a",', json - 200)}"b"]`)))
  add(
    'token with crit',
    bearer(claims('"sub":"a"'), { alg: 'HS256', crit: Array.from({ length: 1200 }, (_, i) => `a${i}`) }),
  )
  // Signatures.
  for (const keyid of [KEYID, 'nobody']) {
    const known = keyid === KEYID ? 'known keyid' : 'unknown keyid'
    const half = LONG / 2
    add(
      `signature over one long field, ${known}`,
      signed(covering(`${TARGET} "x-a"`, keyid), fields('X-A', `a${long(' ', LONG - 400)}a`)),
    )
    add(
      `signature over blanks, ${known}`,
      signed(
        covering(
          lines(60, (i) => `${i === 0 ? TARGET : ''} "x-a";key="a${i}"`),
          keyid,
        ),
        fields('X-A', `${lines(60, (i) => `a${i}=1, `)}b=(${' '.repeat(9000)})`),
      ),
    )
    add(
      `signature over the query, ${known}`,
      signed(
        covering(`${TARGET}${lines(60, (i) => ` "@query-param";name="a${i}"`)}`, keyid),
        '',
        `/signed?${lines(60, (i) => `a${i}=1&`)}${long('a&', 10_000)}`,
      ),
    )
    add(`signature over many components, ${known}`, signed(covering(`${TARGET} ${long('"a" ')}`, keyid)))
    add(`signature over a long name, ${known}`, signed(covering(`${TARGET} "${long('a')}"`, keyid)))
    add(`signature of many parameters, ${known}`, signed(`${covering(TARGET, keyid)}${long(';a')}`))
    add(
      `signature among many, ${known}`,
      signed(`${lines(700, (i) => `a${i}=("@method"), `)}${covering(TARGET, keyid)}`),
    )
    add(`signature of blanks, ${known}`, signed(covering(`${TARGET} ${long(' ')}`, keyid)))
    add(
      `signature that is long, ${known}`,
      get('/signed', fields('Signature-Input', covering(TARGET, keyid)) + fields('Signature', `s=:${long('AAAA')}:`)),
    )
    add(
      `digest that is long, ${known}`,
      signed(covering(`${TARGET} "content-digest"`, keyid), fields('Content-Digest', `sha-256=:${long('AAAA')}:`)),
    )
    add(
      `digests, ${known}`,
      signed(covering(`${TARGET} "content-digest"`, keyid), fields('Content-Digest', `${long('a=:AA==:, ')}b=1`)),
    )
    add(
      `signature input in many lines, ${known}`,
      get(
        '/signed',
        lines(MOST_FIELDS - 1, () =>
          fields('Signature-Input', `s=("@method" ${'"a" '.repeat(wide / 5)});keyid="${keyid}"`),
        ) + fields('Signature', 's=:AAAA:'),
      ),
    )
    add(
      `Signature-Input, blanks around, ${known}`,
      get(
        '/signed',
        fields('Signature-Input', `a${' '.repeat(half)}a${' '.repeat(half - 100)}a`) + fields('Signature', 's=:AAAA:'),
      ),
    )
    add(
      `components of every kind, ${known}`,
      signed(
        covering(
          `${TARGET} "x-a" "x-a";bs "x-a";sf "@authority" "@scheme" "@request-target" "@path" "@query" "cookie" "cookie";bs`,
          keyid,
        ),
        fields('X-A', long('a=1, ', half)) + fields('Cookie', long('a', half - 500)),
      ),
    )
  }
  // Bodies.
  add('chunks of one byte', chunked(`${long('1\r\na\r\n')}0\r\n\r\n`))
  add('chunk extension', chunked(`1;${'a'.repeat(8000)}\r\na\r\n0\r\n\r\n`))
  add('chunk size of zeros', chunked(`${'0'.repeat(8000)}1\r\na\r\n0\r\n\r\n`))
  add('trailers', chunked(`1\r\na\r\n0\r\n${long('a:\r\n')}\r\n`))
  add('trailer', chunked(`1\r\na\r\n0\r\na:${long(' ')}\r\n\r\n`))
  return all
}
