// Responses as an upstream might send them, right and wrong, how each is cut up on its way, and how its connection goes
// on. All of it from a number, so that it can be made again; each says that number in its head. Sends nothing.
import { type Below, changed, cutsOf, numbers } from './mutations.js'

const CUTTING = { ways: 10, few: 5, most: 60, within: 500 }

/** What is asked with that number. */
export interface AskedFor {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT'
  readonly bodyBytes: number
  /** The body is sent in chunks, not with a length. */
  readonly chunked: boolean
  /** The client does not wait for what it asked for. */
  readonly leaves: boolean
}

export interface UpstreamResponse {
  /** It is sent while the request's body may still be on its way. */
  readonly early: boolean
  readonly bytes: Buffer
  /** It is sent in parts, which begin there. */
  readonly cuts: readonly number[]
  /** What becomes of the connection behind it. */
  readonly ending: 'keep' | 'end' | 'reset' | 'stall'
}

/** The rare ones behind the first `usual` come less often. */
const lists = {
  statusLine: {
    usual: 6,
    of: [
      'HTTP/1.1 200 OK', 'HTTP/1.1 200 OK', 'HTTP/1.1 404 Not Found', 'HTTP/1.1 503 Busy', 'HTTP/1.1 200', 'HTTP/1.0 200 OK',
      'HTTP/1.1 204 No Content', 'HTTP/1.1 304 Not Modified', 'HTTP/1.1 205 Reset', 'HTTP/1.1 200 ', 'HTTP/1.1 999 Far', 'HTTP/1.1 600 Over',
      'HTTP/1.1 099 Low', 'HTTP/1.1 000 None', 'HTTP/1.1 20 OK', 'HTTP/1.1  200 OK', 'HTTP/1.1 2000 OK', 'HTTP/1.1 abc', 'HTTP/1.1', 'HTTP/1.2 200 OK',
      'HTTP/2.0 200 OK', 'http/1.1 200 OK', 'ICY 200 OK', 'HTTP/1.1\t200 OK', 'HTTP/0.9 200 OK', ' HTTP/1.1 200 OK', 'HTTP/1.1 200 O\x1bK',
      'HTTP/1.1 200 O\0K', 'HTTP/1.1 200 caf\xe9', 'HTTP/1.1 200 \xc4\x8aX-Evil: 1', 'HTTP/1.1 200 \x7f', 'HTTP/1.1 101 Switching',
      'HTTP/1.1 200 OK\r\nHTTP/1.1 200 OK', '\r\nHTTP/1.1 200 OK', '\r\n\r\nHTTP/1.1 200 OK', '\nHTTP/1.1 200 OK', '\rHTTP/1.1 200 OK',
    ],
  },
  interim: {
    usual: 4,
    of: [
      'HTTP/1.1 100 Continue', 'HTTP/1.1 103 Early Hints\r\nLink: </a>', 'HTTP/1.1 102 Processing', 'HTTP/1.1 100 Continue\r\nX: y',
      'HTTP/1.0 100 Continue', 'HTTP/1.1 199 X\r\nContent-Length: 5', 'HTTP/1.1 100 C\r\nTransfer-Encoding: chunked', 'HTTP/1.1 103 X\r\nConnection: close',
      'HTTP/1.1 100 Continue\r\nContent-Length: 5', 'HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x', 'HTTP/1.1 103 X\r\nKeep-Alive: timeout=0',
    ],
  },
  field: {
    usual: 14,
    of: [
      'Server: x', 'X-Empty:', 'x-blanks: \t a  b \t ', 'X-Latin: caf\xe9', 'Set-Cookie: a=1', 'Set-Cookie: b=2', 'Connection: keep-alive',
      'Connection: X-One', 'X-One: 1', 'Connection: x-one, X-Two', 'Keep-Alive: timeout=5', 'Date: Sat, 01 Jan 2000 00:00:00 GMT', 'X-Rid: mine', 'Via: 1.1 x',
      'Connection: close', 'Connection: x, Close', 'Connection:', 'Connection: ,,,', 'Connection: content-length, date', 'Connection: transfer-encoding',
      'Keep-Alive: timeout=0', 'Keep-Alive: timeout=99999999999', 'Keep-Alive: x', 'Keep-Alive: timeout=1\r\nKeep-Alive: timeout=2', 'Upgrade: h2c',
      'Trailer: X-T', 'TE: x', 'Proxy-Authenticate: Basic', 'Proxy-Connection: close', 'x-tidegate-fallback: mine', 'constructor: x', '__proto__: y',
      '__proto__: y\r\n__proto__: z', 'toString: x', 'length: 5', 'hasOwnProperty: x', 'Content-Type: a\r\nContent-Type: b', 'RateLimit: x',
      'No Colon', 'X-Space : a', ' X-Leading: a', ': no name', 'X-Nul: a\0b', 'X-Cr: a\rb', 'X-Lf: a\nX-Other: b', 'X-Del: a\x7fb', 'X-Fold: a\r\n b',
      'X-\xe9: a', 'X-Ctl: a\x01', 'X-Utf: \xc4\x8a\xe2\x82\xac', 'X-\x7f: a', 'X-(: a', `X-Long: ${'y'.repeat(4900)}`, `X-Long: ${'y'.repeat(12_000)}`,
    ],
  },
  framing: {
    usual: 8,
    of: [
      'length', 'length', 'length', 'chunks', 'chunks', 'Transfer-Encoding: Chunked', 'none', 'Content-Length: 0',
      'long', 'short', 'twice', 'list', 'Content-Length: 5\r\nContent-Length: 6', 'Content-Length: 5, 6', 'Content-Length: +5', 'Content-Length: -5',
      'Content-Length: 0x5', 'Content-Length: 5x', 'Content-Length:', 'Content-Length: ,', 'Content-Length: 99999999999999999999',
      'Content-Length: 999999999999999', 'Content-Length: 5\t', 'Transfer-Encoding: gzip', 'Transfer-Encoding: gzip, chunked', 'Transfer-Encoding: chunked, gzip',
      'Transfer-Encoding: xchunked', 'Transfer-Encoding:', 'Transfer-Encoding: identity', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked',
      'Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip', 'Content-Length: 5\r\nTransfer-Encoding: chunked', 'Transfer-Encoding: chunked\r\nContent-Length: 5',
      'Transfer-Encoding: chunked, chunked', 'Transfer-Encoding:\tchunked',
    ],
  },
  chunk: {
    usual: 3,
    of: [
      '5\r\nhello\r\n', 'A\r\n0123456789\r\n', '2;a=b\r\nhi\r\n', '2;a;b="c d"\r\nhi\r\n', '0001\r\nx\r\n', '6\r\nhello\r\n', '4\r\nhello\r\n', '5\nhello\r\n',
      '5\r\nhello\n', '5 \r\nhello\r\n', ' 5\r\nhello\r\n', '5;\r\nhello\r\n', '5; a\r\nhello\r\n', '5;a=\r\nhello\r\n', '5;a="\r\nhello\r\n', '5;a\nb\r\nhello\r\n',
      '5;a\0\r\nhello\r\n', 'g\r\nhello\r\n', '-5\r\nhello\r\n', '0x5\r\nhello\r\n', '\r\nhello\r\n', 'ffffffffffffffffff\r\nhello\r\n', 'fffffffffffff\r\nhello\r\n',
      `5;${'e'.repeat(3000)}\r\nhello\r\n`, '0\r\n\r\n',
    ],
  },
  trailers: {
    usual: 3,
    of: ['', '', 'X-T: 1\r\n', 'X-T : 1\r\n', 'nothing\r\n', 'X-T: a\0\r\n', 'X-T: 1\nX-U: 2\r\n', ' folded\r\n', `X-T: ${'t'.repeat(17_000)}\r\n`, 'Content-Length: 5\r\n'],
  },
} as const // biome-ignore format: lists of words

/** Sizes about which somebody decides: what leaves in one write, a cork, a read, what is held. */
const SIZES = [0, 1, 5, 100, 100, 1000, 9_999, 10_000, 10_001, 16_352, 16_384, 65_536] as const
const LARGE = [131_072, 300_000] as const
const words = [
  '\r',
  '\n',
  '\r\n',
  '\r\n\r\n',
  '\0',
  ' ',
  ':',
  ';',
  ',',
  '\t',
  '0',
  'x',
  '\x7f',
  '\xff',
  '0\r\n\r\n',
  'HTTP/1.1 ',
  'Connection: a\r\nConnection: b\r\n',
]

/** Fills bodies: what it says is no response and no chunk. */
const filler = 'the quick brown fox jumps over the lazy dog '.repeat(8000)

/** In the head of a response that nobody asked for. */
export const STRAY = 'stray'

/** In a response's head: whose it is. Where bytes were changed it is nobody's. */
const mark = (number: number): string => `${number}.${Math.imul(number + 1, 0x9e3779b1) >>> 0}`

/** The number that a mark stands for; null where it is damaged. */
export function markedNumber(text: string): number | null {
  const number = Number.parseInt(text, 10)
  return text === mark(number) ? number : null
}

/** Of one number. */
export function askedFor(number: number): AskedFor {
  const next = numbers(~number)
  const method = (['GET', 'GET', 'GET', 'GET', 'GET', 'GET', 'HEAD', 'POST', 'POST', 'PUT'] as const)[next(10)]!
  const hasBody = method === 'POST' || method === 'PUT'
  const bodyBytes = hasBody ? [0, 10, 5000, 100_000][next(20) === 0 ? 3 : next(3)]! : 0
  return { method, bodyBytes, chunked: next(2) === 0, leaves: next(50) === 0 }
}

/** Of the same. */
export function upstreamResponse(number: number): UpstreamResponse {
  const next = numbers(number)
  const pick = ({ usual, of }: { usual: number; of: readonly string[] }): string =>
    of[next(12) === 0 ? next(of.length) : next(usual)]!
  let text = ''
  for (let interim = next(8) === 0 ? 1 + next(3) : 0; interim > 0; interim--)
    text += `${pick(lists.interim)}\r\n\r\n${next(6) === 0 ? '\r\n' : ''}`
  const lines = [pick(lists.statusLine), `X-Seen: ${mark(number)}`]
  for (let fields = next(5); fields > 0; fields--) lines.splice(1 + next(lines.length), 0, pick(lists.field))
  if (next(200) === 0) for (let i = 40 + next(400); i > 0; i--) lines.push(`X-Field-${i}: ${i}`)
  const { framing, body } = framed(pick, next)
  if (framing !== '') lines.splice(1 + next(lines.length), 0, framing)
  text += `${lines.join('\r\n')}\r\n\r\n${body}`
  const damages = next(3) === 0 ? 1 + next(2) : 0
  for (let i = 0; i < damages; i++) text = damage(text, next)
  if (next(20) === 0) text += stray(next)
  // What is damaged mostly waits for more: each such case takes a deadline.
  const ways =
    damages > 0
      ? (['end', 'end', 'end', 'reset', 'keep'] as const)
      : (['keep', 'keep', 'keep', 'keep', 'keep', 'keep', 'end', 'reset'] as const)
  return {
    early: next(4) === 0,
    bytes: Buffer.from(text, 'latin1'),
    cuts: cutsOf(text, CUTTING, next),
    ending: next(80) === 0 ? 'stall' : ways[next(ways.length)]!,
  }
}

type Pick = (list: { usual: number; of: readonly string[] }) => string

function framed(pick: Pick, next: Below): { framing: string; body: string } {
  const framing = pick(lists.framing)
  if (/chunks|^Transfer-Encoding/.test(framing))
    return { framing: framing === 'chunks' ? 'Transfer-Encoding: chunked' : framing, body: chunks(pick, next) }
  const size = next(60) === 0 ? LARGE[next(LARGE.length)]! : SIZES[next(8) === 0 ? next(SIZES.length) : next(6)]!
  const body = filler.slice(0, size)
  switch (framing) {
    case 'length':
      return { framing: `Content-Length: ${size}`, body }
    case 'none':
      return { framing: '', body }
    case 'long':
      return { framing: `Content-Length: ${size + 1 + next(20)}`, body }
    case 'short':
      return { framing: `Content-Length: ${Math.max(0, size - 1 - next(5))}`, body }
    case 'twice':
      return { framing: `Content-Length: ${size}\r\nContent-Length: ${size}`, body }
    case 'list':
      return { framing: `Content-Length: ${size}, ${size}`, body }
    default:
      return { framing, body: next(2) === 0 ? 'hello' : body }
  }
}

function chunks(pick: Pick, next: Below): string {
  let body = ''
  for (let count = next(5); count > 0; count--) body += pick(lists.chunk)
  if (next(10) === 0) {
    const size = SIZES[1 + next(SIZES.length - 1)]!
    body += `${size.toString(16)}\r\n${filler.slice(0, size)}\r\n`
  }
  const last = ['0\r\n', '0\r\n', '0\r\n', '0\r\n', '000\r\n', '0;x=y\r\n', ''][next(7)]!
  return body + last + pick(lists.trailers) + (next(12) === 0 ? ['\n', '', '\r'][next(3)]! : '\r\n')
}

/** What nobody asked for, behind it. */
function stray(next: Below): string {
  const response = `HTTP/1.1 200 OK\r\nX-Seen: ${STRAY}\r\nContent-Length: 4\r\n\r\nevil`
  return [response, response, response.slice(0, 1 + next(response.length)), '\r\n', '\0', 'x'.repeat(1 + next(3000))][
    next(6)
  ]!
}

function damage(text: string, next: Below): string {
  const at = next(Math.min(text.length, next(4) === 0 ? text.length : 400) + 1)
  const to = Math.min(text.length, at + next(next(4) === 0 ? 200 : 8))
  const before = text.slice(0, at)
  const way = next(6)
  const other = changed(text, at, to, way, next)
  if (other !== null) return other
  return way === 3 ? before : before + words[next(words.length)] + text.slice(next(2) === 0 ? at : to)
}
