// Responses as an upstream might send them, right and wrong, and one question: do both clients make the same of them,
// in any split?
import { once } from 'node:events'
import type { IncomingHttpHeaders } from 'node:http'
import { type AddressInfo, createServer } from 'node:net'
import fc from 'fast-check'
import { type UpstreamClient, undici } from './upstream-clients.js'
import { ask, type Verdict } from './upstream-verdict.js'

export interface Case {
  readonly method: 'GET' | 'HEAD'
  /** What the upstream sends before it closes the connection; a character a byte. */
  readonly bytes: string
  /** Where its writes end. */
  readonly cuts: readonly number[]
}

/** A kind of response that one of the two refuses, or that undici misreads. Every other difference is a bug. */
export interface Difference {
  readonly why: string
  readonly refusedBy?: 'undici' | 'lean'
  /** What the response contains. */
  readonly bytes: RegExp
}

export const differences: readonly Difference[] = [
  {
    why: 'RFC 9110, 8.6: equal lengths are one',
    refusedBy: 'undici',
    bytes: /\ncontent-length:.*(?:,|\ncontent-length:)/is,
  },
  {
    why: 'RFC 9112, 2.2: an empty line is a CRLF',
    refusedBy: 'lean',
    bytes: /(?:^|\r\n\r\n)[\r\n]+HTTP/,
  },
  {
    why: 'RFC 9112, 2.2: a bare CR is no part of a status line, and does not end one',
    refusedBy: 'lean',
    bytes: /(?:^|\r\n\r\n)HTTP\/1\.[01] [^\r\n]*\r(?!\n)/,
  },
  {
    why: 'RFC 9112, 7.1.1: a chunk extension has a name, and a value where it has an equals sign',
    refusedBy: 'lean',
    bytes: /\r\n[0-9a-f]+;(?:[^\r\n]*;)?(?:[=;\r]|[^\r\n]*=[;\r])/i,
  },
  {
    why: 'RFC 9112, 6.3: 204 and 304 end with their head; the Content-Length of a 304 is that of the 200',
    refusedBy: 'undici',
    bytes: /HTTP\/1\.[01] (?:204|304).*\ncontent-length:/is,
  },
  {
    why: 'RFC 9110, 5.5: a tab is a blank, also around a length',
    refusedBy: 'undici',
    bytes: /\ncontent-length:[^\r\n]*\t/i,
  },
  {
    why: 'the same around a coding: undici takes the body for one without, up to the end of the connection',
    bytes: /\ntransfer-encoding:[^\r\n]*\t/i,
  },
  {
    why: 'a length of more digits than JavaScript counts exactly, also where no body follows',
    refusedBy: 'lean',
    bytes: /\ncontent-length:[ \t]*\d{16}/i,
  },
  {
    why: 'behind an interim response that says HTTP/1.0 it takes bytes that come with an answer, behind its end, for the answer’s failure',
    refusedBy: 'undici',
    bytes: /HTTP\/1\.0 1\d\d/,
  },
]

/** What must be equal: of a failed exchange, the outcome; of an answer, all but what undici gets wrong. */
function essence({ failure, interim, status, phrase, headers, body, trailers }: Verdict): string {
  if (failure !== null) return failure.split(',')[0]!
  // undici keeps blanks at the end of a value (RFC 9110, 5.5), and tells of a 100 as a 102, of which the lean client
  // says nothing.
  const told = interim.filter((status) => status !== 102)
  return JSON.stringify({ told, status, phrase, headers: trimmed(headers), body, trailers: trimmed(trailers!) })
}

function trimmed(fields: IncomingHttpHeaders): [string, string[]][] {
  return Object.entries(fields).map(([name, value]) => [
    name,
    [value ?? ''].flat().map((one) => one.replace(/[ \t]+$/, '')),
  ])
}

/** Null where they agree, or differ as they may. */
export function disagreement({ bytes }: Case, verdicts: { undici: Verdict; lean: Verdict }): string | null {
  const ours = essence(verdicts.lean)
  const theirs = essence(verdicts.undici)
  if (ours === theirs) return null
  const known = differences.some(
    ({ bytes: kind, refusedBy }) =>
      kind.test(bytes) && (refusedBy === undefined || verdicts[refusedBy].failure !== null),
  )
  const whole = (essence: string, { failure }: Verdict) => (failure === null ? essence : failure)
  return known ? null : `undici: ${whole(theirs, verdicts.undici)}\nlean:   ${whole(ours, verdicts.lean)}`
}

const oneOf = fc.constantFrom

const statusLine = fc.oneof(
  {
    weight: 8,
    arbitrary: oneOf('HTTP/1.1 200 OK', 'HTTP/1.1 404 Not Found', 'HTTP/1.1 200', 'HTTP/1.1 200 ', 'HTTP/1.0 200 OK'),
  },
  { weight: 2, arbitrary: oneOf('HTTP/1.1 204 No Content', 'HTTP/1.1 304 Not Modified', 'HTTP/1.1 599 X') },
  {
    weight: 1,
    arbitrary: oneOf(
      'HTTP/1.1 20 OK',
      'HTTP/1.1  200 OK',
      'HTTP/1.1 2000 OK',
      'HTTP/1.1 abc',
      'HTTP/1.1',
      'HTTP/1.2 200 OK',
      'HTTP/2.0 200 OK',
      'http/1.1 200 OK',
      'ICY 200 OK',
      'HTTP/1.1\t200 OK',
      'HTTP/0.9 200 OK',
      '\r\nHTTP/1.1 200 OK',
      ' HTTP/1.1 200 OK',
    ),
  },
)
const interim = fc
  .array(oneOf(103, 102, 103, 100), { maxLength: 2 })
  .map((list) => list.map((status) => `HTTP/1.1 ${status} Wait\r\nLink: </a>\r\n\r\n`))
const plainField = oneOf(
  'Server: x',
  'X-Empty:',
  'x-blanks: \t a  b \t ',
  'X-Latin: caf\xe9',
  'Set-Cookie: a=1',
  'Set-Cookie: b=2',
  'Connection: close',
  'Connection: keep-alive',
  'Connection: x, Close',
  'Keep-Alive: timeout=5',
  'constructor: x',
  '__proto__: y',
)
const oddField = oneOf(
  'No Colon',
  'X-Space : a',
  ' X-Leading: a',
  'X-Tab\t: a',
  ': no name',
  'X-Nul: a\0b',
  'X-Cr: a\rb',
  'X-Lf: a\nX-Other: b',
  'X-Del: a\x7fb',
  'X-Fold: a\r\n b',
  'X-\xe9: a',
  'X-Ctl: a\x01',
)
const framing = fc.oneof(
  {
    weight: 4,
    arbitrary: oneOf(
      'Content-Length: 5',
      'content-length:5 ',
      'Transfer-Encoding: chunked',
      'Transfer-Encoding: Chunked',
    ),
  },
  {
    weight: 1,
    arbitrary: oneOf(
      'Content-Length: 0',
      'Content-Length: 7',
      'Content-Length: 3',
      'Content-Length: 5, 5',
      'Content-Length: +5',
      'Content-Length: -5',
      'Content-Length: 0x5',
      'Content-Length: 5x',
      'Content-Length:',
      'Content-Length: 99999999999999999999',
      'Transfer-Encoding: gzip',
      'Transfer-Encoding: gzip, chunked',
      'Transfer-Encoding: chunked, gzip',
      'Transfer-Encoding: xchunked',
      'Transfer-Encoding:',
      'Content-Length: 5\r\nContent-Length: 5',
      'Content-Length: 5\r\nContent-Length: 6',
      'Content-Length: 5\r\nTransfer-Encoding: chunked',
      'Transfer-Encoding: chunked\r\nContent-Length: 5',
      'Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked',
      'X-None: x',
    ),
  },
)
const chunk = fc.oneof(
  {
    weight: 5,
    arbitrary: oneOf(
      '5\r\nhello\r\n',
      'A\r\n0123456789\r\n',
      '0001\r\nx\r\n',
      '2;a=b\r\nhi\r\n',
      '2;a;b="c d"\r\nhi\r\n',
    ),
  },
  {
    weight: 1,
    arbitrary: oneOf(
      '6\r\nhello\r\n',
      '4\r\nhello\r\n',
      '5\nhello\r\n',
      '5\r\nhello\n',
      '5 \r\nhello\r\n',
      ' 5\r\nhello\r\n',
      '5;\r\nhello\r\n',
      '5; a\r\nhello\r\n',
      '5;a=\r\nhello\r\n',
      '5;a b\r\nhello\r\n',
      '5;a="\r\nhello\r\n',
      '5;a\nb\r\nhello\r\n',
      '5;a\0\r\nhello\r\n',
      'g\r\nhello\r\n',
      '-5\r\nhello\r\n',
      '0x5\r\nhello\r\n',
      '\r\nhello\r\n',
      'ffffffffffffffffff\r\nhello\r\n',
    ),
  },
)
const trailer = fc.oneof(
  { weight: 4, arbitrary: oneOf('', 'X-T: 1\r\n', 'X-T: 1\r\nX-U: 2\r\n') },
  { weight: 1, arbitrary: oneOf('X-T : 1\r\n', 'nothing\r\n', 'X-T: a\0\r\n', 'X-T: 1\nX-U: 2\r\n', ' folded\r\n') },
)
const body = fc.oneof(
  oneOf('', 'hello', 'hello, world'),
  fc
    .tuple(
      fc.array(chunk, { maxLength: 4 }),
      oneOf('0\r\n', '0\r\n', '0\r\n', '000\r\n', '0;x=y\r\n', ''),
      trailer,
      oneOf('\r\n', '\r\n', '\n', ''),
    )
    .map(([chunks, last, trailers, end]) => chunks.join('') + last + trailers + end),
)

const message = fc
  .tuple(interim, statusLine, fc.array(plainField, { maxLength: 4 }), framing, fc.option(oddField, { freq: 6 }), body)
  .map(([before, line, fields, frame, odd, rest]) => {
    const lines = [line, ...fields, frame]
    if (odd !== null) lines.splice(1 + (odd.length % lines.length), 0, odd)
    return `${before.join('')}${lines.join('\r\n')}\r\n\r\n${rest}`
  })

/** One byte put in, taken out or changed. */
const mutated = fc
  .tuple(
    message,
    fc.nat(),
    oneOf('insert', 'remove', 'change'),
    oneOf('\r', '\n', '\0', ' ', ':', ';', '\t', '0', 'x', '\x7f', '\xff'),
  )
  .map(([text, where, how, byte]) => {
    const at = where % text.length
    return text.slice(0, at) + (how === 'remove' ? '' : byte) + text.slice(how === 'insert' ? at : at + 1)
  })

export const upstreamCase: fc.Arbitrary<Case> = fc
  .record({
    method: oneOf<'GET' | 'HEAD'>('GET', 'GET', 'GET', 'HEAD'),
    bytes: fc.oneof(message, mutated),
    split: fc.oneof(
      fc.constant<'whole' | 'bytes'>('whole'),
      fc.constant<'bytes'>('bytes'),
      fc.array(fc.nat(400), { maxLength: 6 }),
    ),
  })
  .map(({ method, bytes, split }) => {
    const cuts = split === 'whole' ? [] : split === 'bytes' ? Array.from(bytes, (_, i) => i) : split
    return { method, bytes, cuts: [...new Set(cuts)].filter((at) => at > 0 && at < bytes.length).sort((a, b) => a - b) }
  })

/** Sends the case's bytes in the case's writes, each in a turn of the loop of its own, then ends the connection. */
export class CaseServer {
  private current: Case | null = null
  private readonly server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', () => {})
    socket.once('data', () => {
      const { bytes, cuts } = this.current!
      const ends = [...cuts, bytes.length]
      let from = 0
      const next = (): void => {
        if (socket.destroyed) return
        const to = ends.shift()
        if (to === undefined) return void socket.end()
        socket.write(bytes.slice(from, to), 'latin1')
        from = to
        setImmediate(next)
      }
      next()
    })
  })

  async listen(): Promise<void> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
  }

  async verdict(client: UpstreamClient, one: Case): Promise<Verdict> {
    this.current = one
    // Not the time is what is asked about, and a machine may stand still for seconds.
    const options = { connectTimeoutMs: 30_000 }
    const pool = client.create(`http://127.0.0.1:${(this.server.address() as AddressInfo).port}`, options)
    try {
      return await ask(pool, { method: one.method })
    } finally {
      await pool.destroy()
    }
  }

  async verdicts(one: Case, lean: UpstreamClient): Promise<{ undici: Verdict; lean: Verdict }> {
    return { undici: await this.verdict(undici, one), lean: await this.verdict(lean, one) }
  }

  close(): void {
    this.server.close()
  }
}
