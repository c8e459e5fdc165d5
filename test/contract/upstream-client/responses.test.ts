// Responses that are HTTP: what each upstream client tells of them.
import { chunked, cutShort, OK, type ResponseCase, refused, testResponses } from '../../support/upstream-contract.js'

const responses: readonly ResponseCase[] = [
  {
    what: 'a length',
    bytes: OK,
    expected: { status: 200, headers: { 'content-length': '2' }, body: 'ok', trailers: {} },
  },
  { what: 'no body', bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n', expected: { body: '', trailers: {} } },
  {
    what: 'no reason phrase',
    bytes: 'HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n',
    expected: { status: 200, phrase: '' },
  },
  {
    what: 'chunks',
    bytes: `${chunked}3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n`,
    expected: { body: 'abc0123456789', trailers: {} },
  },
  {
    what: 'trailers',
    bytes: `${chunked}1\r\na\r\n0\r\nX-Sum: 1\r\nx-two: 2\r\n\r\n`,
    expected: { body: 'a', trailers: { 'x-sum': '1', 'x-two': '2' } },
  },
  { what: 'chunk extensions', bytes: `${chunked}1;a=b;c="d;\\"e"\r\na\r\n0;x\r\n\r\n`, expected: { body: 'a' } },
  {
    what: 'a body up to the end of the connection',
    bytes: 'HTTP/1.1 200 OK\r\n\r\nuntil the end',
    expected: { body: 'until the end' },
  },
  {
    what: 'HTTP/1.0',
    bytes: 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
    expected: { status: 200, body: 'ok', trailers: {} },
  },
  {
    what: 'repeated fields, empty ones, and names an object has of its own',
    bytes:
      'HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSET-COOKIE: b\r\nX-E:\r\nconstructor: c\r\n__proto__: d\r\nContent-Length: 0\r\n\r\n',
    expected: {
      headers: Object.fromEntries([
        ['set-cookie', ['a', 'b']],
        ['x-e', ''],
        ['constructor', 'c'],
        ['__proto__', 'd'],
        ['content-length', '0'],
      ]),
    },
  },
  {
    what: 'bytes above ASCII in a value',
    bytes: 'HTTP/1.1 200 OK\r\nX-L: caf\xe9\r\nContent-Length: 0\r\n\r\n',
    expected: { headers: { 'x-l': 'caf\xe9', 'content-length': '0' } },
  },
  {
    what: 'HEAD with a length',
    method: 'HEAD',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n',
    expected: { body: '', trailers: {} },
  },
  { what: 'HEAD with chunks', method: 'HEAD', bytes: chunked, expected: { body: '', trailers: {} } },
  { what: '204', bytes: 'HTTP/1.1 204 No Content\r\n\r\n', expected: { status: 204, body: '', trailers: {} } },
  {
    what: '304',
    bytes: 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n',
    expected: { status: 304, body: '', trailers: {} },
  },
  {
    what: '304 with the length of what it stands for',
    bytes: 'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n',
    expected: { status: 304, body: '', trailers: {} },
    undici: { expected: cutShort, why: 'it waits for the nine bytes; RFC 9112, 6.3 says there are none' },
  },
  {
    what: 'early hints',
    bytes: `HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n${OK}`,
    expected: { interim: [103, 102], status: 200, body: 'ok' },
  },
  {
    what: '100 that nobody asked for',
    bytes: `HTTP/1.1 100 Continue\r\n\r\n${OK}`,
    expected: { interim: [], status: 200, body: 'ok' },
    undici: { expected: { interim: [102], status: 200, body: 'ok' }, why: 'it is told of as another one' },
  },
  {
    what: 'an empty line behind a 100',
    bytes: `HTTP/1.1 100 Continue\r\n\r\n\r\n${OK}`,
    expected: { status: 200, body: 'ok' },
  },
  { what: 'empty lines before it', bytes: `\r\n\r\n${OK}`, expected: { status: 200, body: 'ok' } },
  {
    what: 'a reason phrase that is not ASCII',
    bytes: 'HTTP/1.1 200 caf\xe9 \xc4\x8a\r\nContent-Length: 0\r\n\r\n',
    expected: { status: 200, phrase: 'caf\xe9 \xc4\x8a' },
  },
  {
    what: 'several Connection fields',
    bytes: 'HTTP/1.1 200 OK\r\nConnection: x-a\r\nConnection: keep-alive\r\nX-A: 1\r\nContent-Length: 2\r\n\r\nok',
    expected: { status: 200, body: 'ok' },
  },
  {
    what: 'the same length twice',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab',
    expected: { status: 200, headers: { 'content-length': '2' }, body: 'ab' },
    undici: { expected: refused, why: 'llhttp refuses it' },
  },
  {
    what: 'a list of equal lengths',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab',
    expected: { status: 200, headers: { 'content-length': '2' }, body: 'ab' },
    undici: { expected: refused, why: 'llhttp refuses it' },
  },
]

testResponses('a response', responses)
