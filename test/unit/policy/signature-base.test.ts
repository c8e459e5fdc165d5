import fc from 'fast-check'
import { type InnerList, parseDictionary } from 'structured-headers'
import { describe, expect, it } from 'vitest'
import { Rejection } from '../../../src/exchange/outcome.js'
import { type Scheme, type SignedRequest, signatureBase } from '../../../src/policy/signature-base.js'
import { EXAMPLES } from '../../support/rfc9421.js'

function requestOf(over: { method?: string; target?: string; headers?: string[] } = {}): SignedRequest {
  const { method = 'GET', target = '/', headers = ['host', 'www.example.com'] } = over
  const mark = target.indexOf('?')
  return {
    method,
    path: mark < 0 ? target : target.slice(0, mark),
    query: mark < 0 ? '' : target.slice(mark + 1),
    hasQuery: mark >= 0,
    headers,
  }
}

const inputOf = (member: string): InnerList => [...parseDictionary(member).values()][0] as InnerList

/** The lines but for the last. */
function lines(request: SignedRequest, components: string, scheme: Scheme = 'https'): string[] {
  const base = signatureBase(request, scheme, inputOf(`sig=(${components});created=1`))
  if (base instanceof Rejection) throw new Error(base.reason)
  return base.split('\n').slice(0, -1)
}

function refusal(request: SignedRequest, components: string): string {
  const base = signatureBase(request, 'https', inputOf(`sig=(${components});created=1`))
  return base instanceof Rejection ? base.reason : 'none'
}

it.each(EXAMPLES)('is that of RFC 9421, $section', ({ request, input, base }) => {
  expect(signatureBase({ ...request, hasQuery: true }, 'https', inputOf(input))).toBe(base.join('\n'))
})

it('ends with the parameters as RFC 9651 writes them, however they were spelled', () => {
  const spelled =
    'sig=(  "@method"   "@path");  created=0012;alg="ed25519";keyid="a\\"b";tag=tok;x;y=?0;z=:YQ==:;n=-1.50'
  expect(signatureBase(requestOf(), 'https', inputOf(spelled))).toBe(
    '"@method": GET\n"@path": /\n' +
      '"@signature-params": ("@method" "@path");created=12;alg="ed25519";keyid="a\\"b";tag=tok;x;y=?0;z=:YQ==:;n=-1.5',
  )
})

describe('derived components', () => {
  // RFC 9421, 2.2.1 to 2.2.7: the examples of each.
  it.each([
    ['@method', 'POST', 'POST', '/path?param=value', 'www.example.com'],
    ['@target-uri', 'https://www.example.com/path?param=value', 'POST', '/path?param=value', 'www.example.com'],
    ['@target-uri', 'https://www.example.com/', 'POST', '/', 'www.example.com'],
    ['@target-uri', 'https://www.example.com/?', 'POST', '/?', 'www.example.com'],
    ['@authority', 'www.example.com', 'POST', '/path', 'www.example.com'],
    ['@authority', 'www.example.com', 'POST', '/path', 'WWW.Example.COM:443'],
    ['@authority', 'www.example.com', 'POST', '/path', 'www.example.com:'],
    ['@authority', 'www.example.com:80', 'POST', '/path', 'www.example.com:80'],
    ['@authority', '[2001:db8::443]', 'POST', '/path', '[2001:DB8::443]'],
    ['@authority', '[2001:db8::1]:8443', 'POST', '/path', '[2001:db8::1]:8443'],
    ['@request-target', '/path?param=value', 'POST', '/path?param=value', 'www.example.com'],
    ['@path', '/path', 'GET', '/path?param=value', 'www.example.com'],
    ['@path', '/a%2Fb/%c3%a7', 'GET', '/a%2Fb/%c3%a7', 'www.example.com'],
    [
      '@query',
      '?param=value&foo=bar&baz=bat%2Dman',
      'GET',
      '/path?param=value&foo=bar&baz=bat%2Dman',
      'www.example.com',
    ],
    ['@query', '?queryString', 'POST', '/path?queryString', 'www.example.com'],
    ['@query', '?', 'POST', '/path', 'www.example.com'],
    ['@query', '?', 'POST', '/path?', 'www.example.com'],
  ])('%s: %s', (name, value, method, target, host) => {
    expect(lines(requestOf({ method, target, headers: ['host', host] }), `"${name}"`)).toEqual([`"${name}": ${value}`])
  })

  it.each([
    ['http', 'www.example.com:80', 'http://www.example.com/'],
    ['http', 'www.example.com:443', 'http://www.example.com:443/'],
    ['https', 'www.example.com:443', 'https://www.example.com/'],
  ] as const)('%s and Host: %s make %s', (scheme, host, uri) => {
    const request = requestOf({ headers: ['host', host] })
    expect(lines(request, '"@scheme" "@target-uri"', scheme)).toEqual([`"@scheme": ${scheme}`, `"@target-uri": ${uri}`])
  })

  it.each(['"@status"', '"@method";req', '"@path";sf', '"@nonsense"', '"@query";name="a"', '"@signature-params"'])(
    'are refused: %s',
    (component) => {
      expect(refusal(requestOf({ target: '/?a=1' }), component)).toMatch(/^signature covers .*: not in the request/)
    },
  )
})

describe('@query-param', () => {
  // RFC 9421, 2.2.8.
  it('is decoded and encoded again', () => {
    const plain = requestOf({ target: '/path?param=value&foo=bar&baz=batman&qux=' })
    expect(lines(plain, '"@query-param";name="baz" "@query-param";name="qux" "@query-param";name="param"')).toEqual([
      '"@query-param";name="baz": batman',
      '"@query-param";name="qux": ',
      '"@query-param";name="param": value',
    ])
    const encoded = requestOf({
      target:
        '/parameters?var=this%20is%20a%20big%0Amultiline%20value&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something',
    })
    const names = ['var', 'bar', 'fa%C3%A7ade%22%3A%20'].map((name) => `"@query-param";name="${name}"`)
    expect(lines(encoded, names.join(' '))).toEqual([
      '"@query-param";name="var": this%20is%20a%20big%0Amultiline%20value',
      '"@query-param";name="bar": with%20plus%20whitespace',
      '"@query-param";name="fa%C3%A7ade%22%3A%20": something',
    ])
  })

  it("encodes what URL forms do: all but letters, digits, '*', '-', '.' and '_'", () => {
    expect(lines(requestOf({ target: "/?a=!'()~*-._" }), '"@query-param";name="a"')).toEqual([
      '"@query-param";name="a": %21%27%28%29%7E*-._',
    ])
  })

  it.each([
    ['one that is missing', '/?b=1', '"@query-param";name="a"'],
    ['one of several', '/?a=1&a=2', '"@query-param";name="a"'],
    ['one of several that are spelled differently', '/?a=1&%61=2', '"@query-param";name="a"'],
    ['a value that is no UTF-8', '/?a=%ff', '"@query-param";name="a"'],
    ['one without a name', '/?a=1', '"@query-param"'],
    ['a name that is no UTF-8', '/?%ff=1', '"@query-param";name="%EF%BF%BD"'],
    ['a name that is not encoded', '/?a%20b=1', '"@query-param";name="a b"'],
    ['a name that is encoded where it need not be', '/?a=1', '"@query-param";name="%61"'],
    ['a name that cannot be decoded', '/?%=1', '"@query-param";name="%"'],
    ['a name that is no string', '/?a=1', '"@query-param";name=a'],
    ['another parameter', '/?a=1', '"@query-param";name="a";bs'],
  ])('refuses %s', (_, target, component) => {
    expect(refusal(requestOf({ target }), component)).toContain('not in the request, or not to be read')
  })
})

describe('fields', () => {
  // RFC 9421, 2.1 to 2.1.3.
  const request = requestOf({
    headers: [
      ...['host', 'www.example.com', 'date', 'Tue, 20 Apr 2021 02:07:56 GMT'],
      ...['x-ows-header', '  Leading and trailing whitespace.\t '],
      ...['cache-control', 'max-age=60', 'x-empty-header', '', 'cache-control', '   must-revalidate'],
      ...['example-dict', '  a=1,    b=2;x=1;y=2,   c=(a   b   c), d'],
      ...['example-header', 'value, with, lots', 'example-header', 'of, commas'],
      ...['priority', 'u=1 ,i', 'idempotency-key', '"k"; a'],
    ],
  })

  it.each([
    ['"host"', 'www.example.com'],
    ['"date"', 'Tue, 20 Apr 2021 02:07:56 GMT'],
    ['"x-ows-header"', 'Leading and trailing whitespace.'],
    ['"x-empty-header"', ''],
    ['"cache-control"', 'max-age=60, must-revalidate'],
    ['"cache-control";key="max-age"', '60'],
    ['"cache-control";key="must-revalidate"', '?1'],
    ['"example-dict"', 'a=1,    b=2;x=1;y=2,   c=(a   b   c), d'],
    ['"example-dict";key="a"', '1'],
    ['"example-dict";key="d"', '?1'],
    ['"example-dict";key="b"', '2;x=1;y=2'],
    ['"example-dict";key="c"', '(a b c)'],
    ['"example-header"', 'value, with, lots, of, commas'],
    ['"example-header";bs', ':dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:'],
    ['"priority";sf', 'u=1, i'],
    ['"idempotency-key";sf', '"k";a'],
  ])('%s: %s', (component, value) => {
    expect(lines(request, component)).toEqual([`${component}: ${value}`])
  })

  it.each([
    ['missing ones', '"x-none"'],
    ['names that are not in lower case', '"Date"'],
    ['names that are no strings', 'date'],
    ['trailers', '"date";tr'],
    ["a response's request", '"date";req'],
    ['parameters that nobody has defined', '"date";x'],
    ['parameters with a value that means nothing', '"priority";sf="x"'],
    ['several parameters', '"example-dict";sf;key="a"'],
    ['sf where the structure is not known', '"example-dict";sf'],
    ['sf where the field has another structure', '"priority";sf', 'u=(('],
    ['keys of what is no dictionary', '"date";key="a"'],
    ['keys that are missing', '"example-dict";key="e"'],
    ['keys that are no string', '"example-dict";key=a'],
    ['the field whose name an object has by itself', '"constructor";sf'],
  ])('refuses %s: %s', (_, component, priority = 'u=1') => {
    const headers = request.headers.map((value, at) => (request.headers[at - 1] === 'priority' ? priority : value))
    expect(refusal({ ...request, headers: [...headers, 'constructor', 'x'] }, component)).toMatch(/^signature covers /)
  })

  it('refuses more components than anybody signs', () => {
    const headers = Array.from({ length: 65 }, (_, i) => [`x-${i}`, 'v']).flat()
    const names = Array.from({ length: 65 }, (_, i) => `"x-${i}"`)
    expect(lines(requestOf({ headers }), names.slice(1).join(' '))).toHaveLength(64)
    expect(refusal(requestOf({ headers }), names.join(' '))).toBe('signature covers more than 64 components')
  })

  it('refuses a component that is covered twice', () => {
    expect(refusal(request, '"date" "@method" "date"')).toBe('signature covers "date": twice')
  })
})

it('never throws, and has one line for each component', () => {
  const name = fc.oneof(
    fc.constantFrom('@method', '@target-uri', '@authority', '@path', '@query', '@query-param', '@status', 'a', 'host'),
    fc.string({ maxLength: 6 }).filter((text) => /^[ -~]*$/.test(text)),
  )
  const parameter = fc.constantFrom('', ';sf', ';bs', ';key="a"', ';key=a', ';name="a"', ';req', ';tr', ';x=1.5')
  const value = fc.string({ unit: fc.constantFrom(...'ab1=,;:"()?%\\ é'), maxLength: 20 })
  fc.assert(
    fc.property(
      fc.array(fc.tuple(name, parameter), { maxLength: 4 }),
      fc.array(value, { maxLength: 3 }),
      value,
      (components, values, query) => {
        const texts = components.map(([text, rest]) => `"${text.replace(/["\\]/g, '\\$&')}"${rest}`)
        const request = requestOf({
          target: `/p?${query}`,
          headers: ['host', 'h', ...values.flatMap((text) => ['a', text])],
        })
        const base = signatureBase(request, 'https', inputOf(`sig=(${texts.join(' ')})`))
        if (base instanceof Rejection) expect(base.status).toBe(401)
        else expect(base.split('\n')).toHaveLength(components.length + 1)
      },
    ),
    { numRuns: 2000 },
  )
})
