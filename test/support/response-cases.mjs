// Doubtful responses: those that are passed on, and what a client then gets of each; and those that are refused with a
// 502. Sent to clients of the gateway by test/e2e/responses.test.ts, and through other proxies by
// scripts/framing-table.mjs.

const head = (...lines) => `HTTP/1.1 200 OK\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`
const OK = `${head('Content-Length: 2')}ok`
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'

/** `undici`: a client of that name refuses it. */
export const PASSED = [
  {
    name: 'two Connection fields',
    rfc: '9110, 5.3',
    bytes: `${head('Connection: x-one', 'X-One: 1', 'Connection: X-Two, keep-alive', 'X-Two: 2', 'X-Three: 3', 'Content-Length: 2')}ok`,
    fields: { 'x-one': [], 'x-two': [], 'x-three': ['3'] },
  },
  {
    name: 'two Connection fields and chunks',
    rfc: '9110, 5.3',
    bytes: `${head('Connection: x-one', 'X-One: 1', 'Connection: keep-alive', 'Transfer-Encoding: chunked')}2\r\nok\r\n0\r\n\r\n`,
    fields: { 'x-one': [] },
  },
  {
    name: 'two Connection fields and no body',
    rfc: '9110, 5.3',
    bytes: head('Connection: x-one', 'Connection: keep-alive', 'Content-Length: 0'),
    text: '',
  },
  {
    name: 'two equal Content-Lengths',
    rfc: '9110, 8.6',
    bytes: `${head('Content-Length: 2', 'Content-Length: 2')}ok`,
    fields: { 'content-length': ['2'] },
    undici: 'refuses',
  },
  {
    name: 'Content-Length as a list of equal numbers',
    rfc: '9110, 8.6',
    bytes: `${head('Content-Length: 2, 2')}ok`,
    fields: { 'content-length': ['2'] },
    undici: 'refuses',
  },
  { name: 'an empty line before it', rfc: '9112, 2.2', bytes: `\r\n${OK}` },
  { name: '100 that nobody asked for', rfc: '9110, 15.2', bytes: CONTINUE + OK },
  { name: 'an empty line behind a 100', rfc: '9112, 2.2', bytes: `${CONTINUE}\r\n${OK}` },
  {
    name: '100, 103 and another 100',
    rfc: '9110, 15.2',
    bytes: `${CONTINUE}HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${CONTINUE}${OK}`,
    fields: { link: [] },
  },
  {
    name: 'bytes over 127 in the reason phrase',
    rfc: '9112, 4',
    bytes: 'HTTP/1.1 200 caf\xe9\r\nContent-Length: 2\r\n\r\nok',
    phrase: 'caf\xe9',
  },
  {
    // As UTF-8 the last two bytes of the phrase are U+010A, and that, as one byte again, a line feed.
    name: 'a reason phrase with half a line feed',
    rfc: '9112, 4',
    bytes: 'HTTP/1.1 200 OK \xc4\x8aX-Evil: 1\r\nX-Wide: \xe9\r\nContent-Length: 2\r\n\r\nok',
    phrase: 'OK \xc4\x8aX-Evil: 1',
    fields: { 'x-wide': ['\xe9'], 'x-evil': [] },
  },
]

/** `reason`: what the access log says. */
export const REFUSED = [
  {
    name: 'a control byte in the reason phrase',
    rfc: '9112, 4',
    bytes: 'HTTP/1.1 200 O\x1bK\r\nContent-Length: 2\r\n\r\nok',
    reason: /^HPE_INVALID_HEADER_TOKEN$/,
  },
  {
    name: 'a control byte in a value',
    rfc: '9110, 5.5',
    bytes: `${head('X: a\x01b', 'Content-Length: 2')}ok`,
    reason: /^(?:HPE_INVALID_HEADER_TOKEN|HTTPParserError)$/,
  },
  {
    name: 'what is no token as a field name',
    rfc: '9110, 5.1',
    bytes: `${head('X(: a', 'Content-Length: 2')}ok`,
    reason: /^(?:HPE_INVALID_HEADER_TOKEN|HTTPParserError)$/,
  },
  {
    name: 'two Transfer-Encoding fields',
    rfc: '9112, 7.1',
    bytes: `${head('Transfer-Encoding: chunked', 'Transfer-Encoding: chunked')}2\r\nok\r\n0\r\n\r\n`,
    reason: /^HPE_INVALID_TRANSFER_ENCODING$/,
  },
  {
    name: 'a coding that nobody undoes',
    rfc: '9112, 6.1',
    bytes: `${head('Transfer-Encoding: gzip, chunked')}2\r\nok\r\n0\r\n\r\n`,
    reason: /^HPE_INVALID_TRANSFER_ENCODING$/,
  },
  {
    name: 'Transfer-Encoding in HTTP/1.0',
    rfc: '9112, 6.1',
    bytes: 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
    reason: /^HPE_INVALID_TRANSFER_ENCODING$/,
  },
  {
    name: 'HTTP/2.0 in the form of 1.1',
    rfc: '9112, 2.3',
    bytes: 'HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok',
    reason: /^HPE_INVALID_VERSION$/,
  },
  {
    name: 'two Content-Lengths that differ',
    rfc: '9110, 8.6',
    bytes: `${head('Content-Length: 2', 'Content-Length: 3')}ok!`,
    reason: /CONTENT_LENGTH/,
  },
  {
    name: 'Content-Length and Transfer-Encoding',
    rfc: '9112, 6.3',
    bytes: `${head('Content-Length: 12', 'Transfer-Encoding: chunked')}2\r\nok\r\n0\r\n\r\n`,
    reason: /CONTENT_LENGTH|HTTPParserError/,
  },
  {
    name: 'status 099',
    rfc: '9110, 15',
    bytes: 'HTTP/1.1 099 Low\r\nContent-Length: 2\r\n\r\nok',
    reason: /^HPE_INVALID_STATUS$/,
  },
]
