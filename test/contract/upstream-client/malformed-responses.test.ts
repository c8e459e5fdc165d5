// What is not HTTP, or is cut short: no upstream client takes it for a response.
import {
  chunked,
  cutShort,
  lost,
  OK,
  type ResponseCase,
  refused,
  testResponses,
} from '../../support/upstream-contract.js'

const responses: readonly ResponseCase[] = [
  { what: 'an empty line that is cut short', bytes: '\r\n\r', expected: lost },
  { what: 'a CR before it', bytes: `\r${OK}`, expected: refused, undici: { expected: {}, why: 'llhttp lets it pass' } },
  ...['\0', '\x0b', '\x1b', '\x7f'].map((byte) => ({
    what: `${JSON.stringify(byte)} in a reason phrase`,
    bytes: `HTTP/1.1 200 O${byte}K\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  ...['\0', '\x0b', '\x1b', '\x7f'].map((byte) => ({
    what: `${JSON.stringify(byte)} in a value`,
    bytes: `HTTP/1.1 200 OK\r\nX: a${byte}b\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  ...['', 'a b', 'a\x7f', 'a\xe9', 'a(b', 'a"'].map((name) => ({
    what: `a field called ${JSON.stringify(name)}`,
    bytes: `HTTP/1.1 200 OK\r\n${name}: x\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  ...['0.9', '1.2', '2.0'].map((version) => ({
    what: `HTTP/${version}`,
    bytes: `HTTP/${version} 200 OK\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  {
    what: 'a coding in HTTP/1.0',
    bytes: 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  ...['099', '000', '20', '2000', '-20', '2 0'].map((status) => ({
    what: `status ${status}`,
    bytes: `HTTP/1.1 ${status} OK\r\nContent-Length: 2\r\n\r\nok`,
    expected: refused,
  })),
  {
    what: '101 that nobody asked for',
    bytes: 'HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n',
    expected: lost,
  },
  {
    what: 'two lengths',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
    expected: refused,
  },
  ...['2, 3', '2,', ',2', '2, 02', '2;2'].map((list) => ({
    what: `a length of ${JSON.stringify(list)}`,
    bytes: `HTTP/1.1 200 OK\r\nContent-Length: ${list}\r\n\r\nab`,
    expected: refused,
  })),
  { what: 'a signed length', bytes: 'HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nab', expected: refused },
  {
    what: 'an enormous length',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab',
    expected: refused,
  },
  {
    what: 'a length and chunks',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'chunks and a length',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'another transfer coding',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx',
    expected: refused,
  },
  {
    what: 'chunked twice',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'chunked and another coding',
    bytes: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    expected: refused,
  },
  { what: 'a bare LF', bytes: 'HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n', expected: refused },
  {
    what: 'a bare LF between fields',
    bytes: 'HTTP/1.1 200 OK\r\nX: a\nY: b\r\nContent-Length: 0\r\n\r\n',
    expected: refused,
  },
  { what: 'a bare CR', bytes: 'HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n', expected: refused },
  { what: 'NUL', bytes: 'HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n', expected: refused },
  { what: 'a folded line', bytes: 'HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n', expected: refused },
  {
    what: 'a blank before the colon',
    bytes: 'HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n',
    expected: refused,
  },
  {
    what: 'a line without a colon',
    bytes: 'HTTP/1.1 200 OK\r\nnothing\r\nContent-Length: 0\r\n\r\n',
    expected: refused,
  },
  { what: 'a status of letters', bytes: 'HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n', expected: refused },
  { what: 'another protocol', bytes: 'SSH-2.0-OpenSSH_9.2\r\n', expected: refused },
  { what: 'fields over the limit', bytes: `HTTP/1.1 200 OK\r\nX: ${'x'.repeat(17_000)}\r\n\r\n`, expected: refused },
  { what: 'a chunk size of letters', bytes: `${chunked}xyz\r\nabc\r\n`, expected: cutShort },
  { what: 'a signed chunk size', bytes: `${chunked}-3\r\nabc\r\n`, expected: cutShort },
  { what: 'an enormous chunk size', bytes: `${chunked}fffffffffffffffff\r\nabc\r\n`, expected: cutShort },
  { what: 'a blank after a chunk size', bytes: `${chunked}3 \r\nabc\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a chunk longer than it says', bytes: `${chunked}3\r\nabcd\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a bare LF after a chunk size', bytes: `${chunked}3\nabc\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a bare LF in a chunk extension', bytes: `${chunked}3;a\nabc\r\n0\r\n\r\n`, expected: cutShort },
  { what: 'a malformed trailer', bytes: `${chunked}0\r\nX : a\r\n\r\n`, expected: cutShort },
  { what: 'the end before the answer', bytes: '', expected: lost },
  { what: 'the end in the status line', bytes: 'HTTP/1.1 20', expected: lost },
  { what: 'the end in the fields', bytes: 'HTTP/1.1 200 OK\r\nX: a\r\n', expected: lost },
  {
    what: 'the end in a body',
    bytes: 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc',
    expected: { status: 200, body: 'abc', ...cutShort },
  },
  { what: 'the end in a chunk', bytes: `${chunked}9\r\nabc`, expected: { body: 'abc', ...cutShort } },
  { what: 'the end before the last chunk', bytes: `${chunked}3\r\nabc\r\n`, expected: { body: 'abc', ...cutShort } },
  { what: 'the end in the trailers', bytes: `${chunked}0\r\nX: a\r\n`, expected: cutShort },
]

testResponses('what is no response', responses)
