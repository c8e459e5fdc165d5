// What the bytes of a connection say to somebody who takes nothing but what is beyond doubt: requests that every server
// must serve, one after the other, and then nothing, a part of one, or something else. It knows less than the gateway
// on purpose: where it is sure, the gateway must be.
import { createHash } from 'node:crypto'

export interface StrictRequest {
  readonly method: string
  /** What the service is to have got of it (strict-origin.ts). */
  readonly seen: string
  readonly needsSignature: boolean
  /** HTTP/1.0: to an answer of no known length the connection is its end. */
  readonly old: boolean
  readonly hasBody: boolean
  /** Its connection ends with the answer. */
  readonly ends: boolean
}

/**
 * nothing: all that was sent has been read. part: a request has begun that may still be sound. doubt: what follows is
 * not. over: nobody reads it.
 */
export type Behind = 'nothing' | 'part' | 'doubt' | 'over'

/** How the service says what it has got, in a header field. */
export const seenAs = (method: string, target: string, body: Buffer): string =>
  `${method} ${target.slice(0, 200)} ${body.length} ${createHash('md5').update(body).digest('hex').slice(0, 8)}`

const REQUEST_LINE =
  /^(GET|HEAD|POST|PUT|DELETE) (?:(https?):\/\/([a-z0-9.]+(?::\d{1,4})?)(?=[ /?]))?((?:\/[A-Za-z0-9_-]+)+\/?|\/|)(\?[A-Za-z0-9=&_-]*)? HTTP\/1\.([01])$/
const FIELD = /^([A-Za-z0-9-]{1,100}): ([!-~](?:[ -~]*[!-~])?)$/
const AUTHORITY = /^[a-z0-9]+(\.[a-z0-9]+)*(:[1-9]\d{0,3})?$/
const CHUNK_LINE = /^([0-9a-fA-F]{1,4})(?:;[a-z]+=[a-z]+)?$/
/** Below any limit of the gateway's. */
const MOST_HEAD_BYTES = 12_000
const MOST_FIELDS = 95
export const MOST_BODY_BYTES = 10_000
/** That change who answers, or how. */
const NOT_JUDGED = new Set(['upgrade', 'x-rid', 'trailer', 'keep-alive', 'proxy-connection'])

export class StrictReading {
  readonly requests: StrictRequest[] = []
  behind: Behind = 'nothing'
  /** All that was not read. */
  private rest = ''
  private young = false
  private expecting = 0

  /**
   * @param secure the listener speaks TLS
   * @param servesHttp10 the listener knows HTTP/1.0 as well
   */
  constructor(
    private readonly secure: boolean,
    private readonly servesHttp10: boolean,
  ) {}

  append(text: string): void {
    this.rest += text
    while (this.behind !== 'doubt' && this.behind !== 'over') {
      const length = this.readOne()
      if (length === 0) break
      this.rest = this.rest.slice(length)
    }
  }

  /** From here on nothing is certain. */
  doubt(): void {
    this.behind = 'doubt'
  }

  /**
   * No more answers than that, whoever reads: each but a refusal, which is the last, is to a head with its version and
   * its end.
   */
  get mostAnswers(): number {
    const more =
      this.behind === 'nothing' || this.behind === 'over'
        ? 0
        : this.behind === 'part'
          ? 1
          : 1 + Math.min(count(this.rest, /HTTP\/1\.[01]\r\n/g), count(this.rest, /\r\n(?=\r\n)/g))
    return this.requests.length + more
  }

  /** RFC 9110, 10.1.1: who does not expect it is not told to continue. */
  get mostContinues(): number {
    return this.expecting + (this.behind === 'over' ? 0 : count(this.rest, /expect/gi))
  }

  /** How many bytes the next request takes; 0 where it is not all there, or not beyond doubt. */
  private readOne(): number {
    const { rest } = this
    if (rest === '') return this.stop('nothing')
    let from = 0
    while (rest.startsWith('\r\n', from)) from += 2
    const end = rest.indexOf('\r\n\r\n', from)
    if (end < 0) return this.stop('part')
    if (end - from > MOST_HEAD_BYTES) return this.stop('doubt')
    const [line = '', ...lines] = rest.slice(from, end).split('\r\n')
    const match = REQUEST_LINE.exec(line)
    const fields = fieldsOf(lines)
    if (match === null || fields === null) return this.stop('doubt')
    const [, method = '', scheme, authority, path = '', query = '', minor] = match
    if (authority === undefined && path === '') return this.stop('doubt')
    if (scheme !== undefined && (scheme === 'https') !== this.secure) return this.stop('doubt')
    const old = minor === '0'
    // The acceptor knows an old request by the first bytes of a connection; behind one of HTTP/1.1 there is none.
    if (old && (!this.servesHttp10 || this.young || from > 0)) return this.stop('doubt')
    const host = fields.get('host')
    if (host === undefined ? !old : !AUTHORITY.test(host)) return this.stop('doubt')
    if (authority !== undefined && (host ?? authority) !== authority) return this.stop('doubt')
    if (authority !== undefined && !AUTHORITY.test(authority)) return this.stop('doubt')
    const expect = fields.get('expect')
    // Whether its connection goes on behind a refusal depends on who has told it to continue, and so on how its head
    // came.
    if (expect !== undefined && (expect.toLowerCase() !== '100-continue' || path.startsWith('/signed')))
      return this.stop('doubt')
    const connection = fields.get('connection')?.toLowerCase()
    if (connection !== undefined && !/^(keep-alive|close|te, close)$/.test(connection)) return this.stop('doubt')
    const body = this.readBody(fields, old, end + 4)
    if (body === null) return 0
    if (expect !== undefined) this.expecting++
    const ends = old ? connection !== 'keep-alive' : connection?.endsWith('close') === true
    const target = `${path === '' ? '/' : path}${query}`
    this.requests.push({
      method,
      seen: seenAs(method, target, Buffer.from(body.text, 'latin1')),
      needsSignature: /^\/signed(\/|$)/.test(path),
      old,
      hasBody: body.text !== '',
      ends,
    })
    this.young ||= !old
    this.behind = ends ? 'over' : 'nothing'
    return body.end
  }

  private readBody(
    fields: ReadonlyMap<string, string>,
    old: boolean,
    at: number,
  ): { text: string; end: number } | null {
    const { rest } = this
    const length = fields.get('content-length')
    const coding = fields.get('transfer-encoding')
    if (coding === undefined) {
      if (length === undefined) return { text: '', end: at }
      if (!/^\d{1,5}$/.test(length) || Number(length) > MOST_BODY_BYTES) return this.fail('doubt')
      const end = at + Number(length)
      return rest.length < end ? this.fail('part') : { text: rest.slice(at, end), end }
    }
    if (coding !== 'chunked' || length !== undefined || old) return this.fail('doubt')
    let text = ''
    for (let from = at; ; ) {
      const lf = rest.indexOf('\r\n', from)
      if (lf < 0) return this.fail('part')
      const match = CHUNK_LINE.exec(rest.slice(from, lf))
      if (match === null) return this.fail('doubt')
      const bytes = Number.parseInt(match[1]!, 16)
      const data = lf + 2
      if (bytes === 0) {
        if (rest.startsWith('\r\n', data)) return { text, end: data + 2 }
        const end = rest.indexOf('\r\n\r\n', data)
        if (end < 0) return this.fail('part')
        if (end - data > 4000 || fieldsOf(rest.slice(data, end).split('\r\n')) === null) return this.fail('doubt')
        return { text, end: end + 4 }
      }
      text += rest.slice(data, data + bytes)
      if (text.length > MOST_BODY_BYTES) return this.fail('doubt')
      from = data + bytes + 2
      if (rest.length < from) return this.fail('part')
      if (!rest.startsWith('\r\n', from - 2)) return this.fail('doubt')
    }
  }

  private stop(behind: Behind): 0 {
    this.behind = behind
    return 0
  }

  private fail(behind: Behind): null {
    this.behind = behind
    return null
  }
}

/** Null where one is there twice, or not beyond doubt. */
function fieldsOf(lines: readonly string[]): Map<string, string> | null {
  if (lines.length > MOST_FIELDS) return null
  const fields = new Map<string, string>()
  for (const line of lines) {
    const [, name, value] = FIELD.exec(line) ?? []
    if (name === undefined || NOT_JUDGED.has(name.toLowerCase()) || fields.has(name.toLowerCase())) return null
    fields.set(name.toLowerCase(), value!)
  }
  return fields
}

function count(text: string, what: RegExp): number {
  return text.match(what)?.length ?? 0
}
