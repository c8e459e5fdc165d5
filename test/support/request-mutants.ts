// Requests as nobody would send them: good ones and those of framing-cases.mjs, cut, doubled, spliced, in company, of
// another version or framing, and with bytes changed; and how each is cut up on its way. All of it from a number, so
// that it can be made again. Sends nothing.
import { CLASSES, SERVED } from './framing-cases.mjs'
import { type Below, changed, cutsOf, numbers } from './mutations.js'

const HOST = 'Host: a.test\r\n'
const KEEP = 'Connection: keep-alive\r\n'
const INNER = `GET /inner HTTP/1.1\r\n${HOST}\r\n`

/** Each is to be served, by every listener that knows its version. */
export const GOOD: readonly string[] = [
  `GET / HTTP/1.1\r\n${HOST}\r\n`,
  'GET /a/b/c?x=20&y HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nCookie: a=1; b="2"\r\n\r\n',
  `HEAD /x HTTP/1.1\r\nHost: b.test:81\r\n${KEEP}\r\n`,
  `POST /signed HTTP/1.1\r\n${HOST}x-source: test\r\nx-time: 1\r\nx-m: abc\r\nContent-Length: 3\r\n\r\nabc`,
  `PUT / HTTP/1.1\r\n${HOST}Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello`,
  `POST /e HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n`,
  `POST / HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n`,
  `GET / HTTP/1.1\r\n${HOST}Forwarded: for=1\r\nX-Forwarded-For: 1, 2\r\ntraceparent: 00-1-2-01\r\nConnection: close\r\n\r\n`,
  `POST /l HTTP/1.1\r\n${HOST}Content-Length: ${INNER.length}\r\n\r\n${INNER}`,
  `POST /c HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n${INNER.length.toString(16)}\r\n${INNER}\r\n0\r\n\r\n`,
  `\r\nDELETE /d HTTP/1.1\r\n${HOST}\r\n`,
  'GET / HTTP/1.0\r\n\r\n',
  `GET /old HTTP/1.0\r\n${HOST}${KEEP}\r\n`,
  `HEAD /old HTTP/1.0\r\n${KEEP}\r\n`,
  `POST /old HTTP/1.0\r\n${KEEP}Content-Length: 5\r\n\r\nhello`,
  `POST /old HTTP/1.0\r\n${HOST}Content-Length: ${INNER.length}\r\n${KEEP}\r\n${INNER}`,
  `PUT /old HTTP/1.0\r\n${HOST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello`,
]
/** Forms that depend on what the listener speaks. */
const ABSOLUTE = ['http', 'https'].flatMap((scheme) => [
  `GET ${scheme}://a.test/abs HTTP/1.1\r\n${HOST}\r\n`,
  `GET ${scheme}://a.test:8080?q HTTP/1.1\r\nHost: a.test:8080\r\n\r\n`,
  `POST ${scheme}://a.test/abs HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n`,
  `GET ${scheme}://a.test/abs HTTP/1.0\r\n${KEEP}\r\n`,
])
const served = [...GOOD, ...ABSOLUTE]
const corpus = [...served, ...CLASSES.flatMap(({ requests }) => requests), ...SERVED.map(({ request }) => request)]
  .filter((request) => request.length < 4000)
  .map((request) => Buffer.from(request, 'latin1').toString('latin1'))

const words = [
  '\r\n', '\r\n\r\n', '\n', '\r', '\0', '\t', ' ', ':', ';', ',', '/', '//', '/../', '/%2e%2e/', '%2F', '%00', '%', '#', '?', '\\', '@',
  '\xff', '\xef\xbb\xbf', '0', '0\r\n\r\n', 'ffffffffffffffff', '-1', '+1', '0x', '1\r\na\r\n', 'chunked', 'identity', 'Host: b.test\r\n',
  'Content-Length: 5\r\n', 'Content-Length: 0\r\n', 'Transfer-Encoding: chunked\r\n', 'Connection: close\r\n', 'Connection: host, x-rid\r\n',
  'Upgrade: websocket\r\n', 'X_Y: z\r\n', ' HTTP/1.1\r\n', 'HTTP/1.0', 'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n', 'OPTIONS * ', 'http://a.test',
  KEEP, 'Connection: keep-alive, close\r\n', 'Expect: 100-continue\r\n', 'Expect: x\r\n', 'https://a.test', 'Tidegate-Target: b.test\r\n',
  'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n', 'HEAD ', 'PROXY UNKNOWN\r\n', '\r\n\r\n\0\r\nQUIT\n',
] // biome-ignore format: a list of words

/**
 * Sizes about which somebody decides: what the parser, the acceptor and the tests take for a head, fields, and what is
 * read at once.
 */
const EDGES = [4096, 8192, 16_384, 16_384, 16_384, 32_768]
const MOST_FIELDS = 100

export interface Mutant {
  readonly bytes: Buffer
  /** It is sent in parts, which begin there. */
  readonly cuts: readonly number[]
}

/** Of one number. */
export function mutant(number: number): Mutant {
  const next = numbers(number)
  const pick = <T>(list: readonly T[]): T => list[next(list.length)]!
  let text = next(3) === 0 ? pick(corpus) : pick(served)
  // What changes the meaning and leaves it sound, where it was: these must be served as before, or are a fault that
  // hides in a good request.
  for (let changes = next(2) === 0 ? 0 : 1 + next(2); changes > 0; changes--) text = reshape(text, next)
  for (let changes = next(2) === 0 ? 0 : 1 + next(4); changes > 0; changes--) text = damage(text, next)
  // In company: behind one that is held back, before one that must not be looked at, or both.
  for (let more = next(3) === 0 ? 1 + next(3) : 0; more > 0; more--) {
    const other = next(4) === 0 ? pick(corpus) : pick(served)
    text = next(2) === 0 ? other + text : text + other
  }
  const bytes = Buffer.from(text, 'latin1')
  return { bytes, cuts: cutsOf(text, CUTTING, next) }
}

function reshape(text: string, next: Below): string {
  const line = text.indexOf('\r\n', 2) + 2
  const end = text.indexOf('\r\n\r\n', 2) + 2
  if (line < 2 || end < line) return text
  const withField = (field: string) => (next(2) === 0 ? insert(text, line, field) : insert(text, end, field))
  switch (next(7)) {
    case 0:
      return text.replace(/ HTTP\/1\.[01]\r\n/, next(2) === 0 ? ' HTTP/1.0\r\n' : ` HTTP/1.0\r\n${KEEP}`)
    case 1:
      return text.replace(' HTTP/1.0\r\n', ` HTTP/1.1\r\n${/\r\nHost:/.test(text) ? '' : HOST}`)
    case 2:
      return withField([KEEP, 'Connection: close\r\n', 'Connection: TE, close\r\n'][next(3)]!)
    case 3:
      return inChunks(text, end, next)
    case 4: {
      const edge = EDGES[next(EDGES.length)]! - 8 + next(16)
      const missing = edge - (end + 2) - 'X-Long: \r\n'.length
      return missing < 0 ? text : withField(`X-Long: ${'y'.repeat(missing)}\r\n`)
    }
    case 5: {
      const fields = text.slice(line, end).split('\r\n').length - 1
      const missing = Math.max(0, MOST_FIELDS - 3 + next(6) - fields)
      return withField(Array.from({ length: missing }, (_, i) => `x-${i}: ${i}\r\n`).join(''))
    }
    default:
      return withField('Expect: 100-continue\r\n')
  }
}

/** A body of known length in chunks of one byte or of any size, with and without extensions and trailers. */
function inChunks(text: string, end: number, next: Below): string {
  const declared = /\r\nContent-Length: (\d+)\r\n/.exec(text.slice(0, end + 2))
  if (declared === null) return text
  const head = text.slice(0, end).replace(declared[0], '\r\nTransfer-Encoding: chunked\r\n')
  const length = Number(declared[1])
  const body = text.slice(end + 2, end + 2 + length)
  const most = next(2) === 0 ? 1 : 1 + next(8)
  let chunks = ''
  for (let from = 0; from < body.length; ) {
    const part = body.slice(from, from + 1 + next(most))
    chunks += `${part.length.toString(16)}${next(4) === 0 ? ';e=f' : ''}\r\n${part}\r\n`
    from += part.length
  }
  return `${head}\r\n${chunks}0\r\n${next(3) === 0 ? 'X-Sum: 1\r\n' : ''}\r\n${text.slice(end + 2 + length)}`
}

function insert(text: string, at: number, what: string): string {
  return text.slice(0, at) + what + text.slice(at)
}

function damage(text: string, next: Below): string {
  const pick = (list: readonly string[]): string => list[next(list.length)]!
  const at = next(text.length + 1)
  const to = Math.min(text.length, at + next(next(4) === 0 ? 200 : 8))
  const before = text.slice(0, at)
  const way = next(7)
  const other = changed(text, at, to, way, next)
  if (other !== null) return other
  switch (way) {
    case 3:
      return before + pick(corpus).slice(next(60))
    case 4:
      return text + pick(corpus)
    default:
      return before + pick(words) + text.slice(next(2) === 0 ? at : to)
  }
}

const CUTTING = { ways: 8, few: 6, most: 600, within: Number.POSITIVE_INFINITY }

const SIGNATURE = '\r\n\r\n\0\r\nQUIT\n'
const v2 = (command: string, rest: string): string =>
  `${SIGNATURE}${command}${String.fromCharCode(rest.length >> 8, rest.length & 255)}${rest}`
const V4 = '\xc0\0\x02\x01\xc6\x33\x64\x07\xdc\x04\x01\xbb'

/** PROXY headers that are believed. */
export const PROXY_HEADERS: readonly string[] = [
  'PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n',
  'PROXY TCP6 2001:db8:0:0::1 ::1 56324 443\r\n',
  'PROXY UNKNOWN\r\n',
  v2('\x21\x11', V4),
  v2('\x21\x11', `${V4}\x04\x01\x00${'\0'.repeat(256)}`),
  v2('\x21\x21', `\x20\x01\x0d\xb8${'\0'.repeat(11)}\x01${'\x01'.repeat(16)}\0\0\0\0`),
  v2('\x20\x00', ''),
]

/** Of one number: a header as it should be, or a damaged one. */
export function proxyHeader(number: number): { readonly text: string; readonly good: boolean } {
  const next = numbers(~number)
  const good = PROXY_HEADERS[next(PROXY_HEADERS.length)]!
  const text = next(4) === 0 ? damage(good, next) : good
  return { text, good: text === good }
}
