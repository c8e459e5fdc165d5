// A response's head, from text to fields. As strict as llhttp, and where RFC 9112 lets a recipient choose, on the side
// of refusing. Pure; runs per response.
import type { IncomingHttpHeaders } from 'node:http'
import { TOKEN } from '../../config/patterns.js'
import { parserError } from '../undici.js'

export interface ResponseHead {
  readonly status: number
  readonly phrase: string
  /** Names in lower case; repeated fields as arrays. Shared by equal heads: read it, never write to it. */
  readonly headers: IncomingHttpHeaders
  /** Content-Length; -1 without one. */
  readonly length: number
  readonly chunked: boolean
  /** The upstream keeps the connection open after this response. */
  readonly persistent: boolean
  /** How long it may idle by the upstream's own Keep-Alive field, less a second for the way; -1 without one. */
  readonly keepAliveMs: number
}

/** A fast object without Object.prototype: a field may be called `constructor` or `__proto__`. */
const Fields = function Fields() {} as unknown as new () => IncomingHttpHeaders
Fields.prototype = Object.create(null)

/** Names as they came → in lower case, once they are known to be tokens. Capped: upstreams choose names. */
const names = new Map<string, string>()
const MAX_NAMES = 1000
/** RFC 9110, 5.5: control characters other than HTAB. CR and LF are lineEnd's. */
// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
const FORBIDDEN = /[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]/

function lowerCaseName(name: string): string {
  const known = names.get(name)
  if (known !== undefined) return known
  if (!TOKEN.test(name)) throw parserError(`invalid field name ${JSON.stringify(name)}`, 'INVALID_HEADER_TOKEN')
  const lower = name.toLowerCase()
  if (names.size < MAX_NAMES) names.set(name, lower)
  return lower
}

/** Where the line at `at` ends: its CRLF, or the end of the text. RFC 9112, 2.2: neither CR nor LF comes alone. */
function lineEnd(text: string, at: number): number {
  const cr = text.indexOf('\r', at)
  const lf = text.indexOf('\n', at)
  if (cr < 0 && lf < 0) return text.length
  if (cr < 0 || lf !== cr + 1) throw parserError('bare CR or LF', 'CR_EXPECTED')
  return cr
}

/** Throws for what are no field lines. */
export function checkFields(text: string): void {
  if (FORBIDDEN.test(text)) throw parserError('control character in the head', 'INVALID_HEADER_TOKEN')
  parseFields(text, 0)
}

/** Field lines, from `from` to the end of the text. */
function parseFields(text: string, from: number): IncomingHttpHeaders {
  const fields = new Fields()
  for (let at = from; at < text.length; ) {
    const end = lineEnd(text, at)
    const colon = text.indexOf(':', at)
    if (colon < 0 || colon >= end) throw parserError('field line without a colon', 'INVALID_HEADER_TOKEN')
    const name = lowerCaseName(text.substring(at, colon))
    let first = colon + 1
    let last = end
    while (first < last && isBlank(text.charCodeAt(first))) first++
    while (last > first && isBlank(text.charCodeAt(last - 1))) last--
    const value = text.substring(first, last)
    const earlier = fields[name]
    if (earlier === undefined) fields[name] = value
    else if (typeof earlier === 'string') fields[name] = [earlier, value]
    else earlier.push(value)
    at = end + 2
  }
  return fields
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}

/** `text` is the head without the empty line that ends it. */
export function parseHead(text: string): ResponseHead {
  if (FORBIDDEN.test(text)) throw parserError('control character in the head', 'INVALID_HEADER_TOKEN')
  // HTTP/1.x 200[ phrase]
  if (!text.startsWith('HTTP/1.') || text.charCodeAt(8) !== 0x20)
    throw parserError('not an HTTP/1 response', 'INVALID_VERSION')
  const minor = text.charCodeAt(7) - 0x30
  if (minor !== 0 && minor !== 1) throw parserError('unknown HTTP version', 'INVALID_VERSION')
  const status = digit(text, 9) * 100 + digit(text, 10) * 10 + digit(text, 11)
  const end = lineEnd(text, 12)
  if (!(status >= 100) || (end !== 12 && text.charCodeAt(12) !== 0x20))
    throw parserError('invalid status', 'INVALID_STATUS')
  const phrase = end === 12 ? '' : text.substring(13, end)
  const headers = parseFields(text, end + 2)

  const length = contentLength(headers)
  const coding = headers['transfer-encoding']
  if (coding !== undefined) {
    if (length >= 0) throw parserError('Transfer-Encoding and Content-Length', 'UNEXPECTED_CONTENT_LENGTH')
    // RFC 9112, 6.1: another coding cannot be passed on as if it were none, and HTTP/1.0 has none at all.
    // Several fields are a list of codings.
    if (minor === 0 || String(coding).toLowerCase() !== 'chunked')
      throw parserError('unknown transfer coding', 'INVALID_TRANSFER_ENCODING')
  }
  return {
    status,
    phrase,
    headers,
    length,
    chunked: coding !== undefined,
    persistent: isPersistent(headers.connection, minor),
    keepAliveMs: headers['keep-alive'] === undefined ? -1 : hintMs(String(headers['keep-alive'])),
  }
}

/**
 * -1 without one. RFC 9110, 8.6: equal ones, as several fields or as a list, count as one, and are passed on as one.
 */
function contentLength(headers: IncomingHttpHeaders): number {
  const declared = headers['content-length'] as string | string[] | undefined
  if (declared === undefined) return -1
  let value = String(declared)
  if (value.includes(',')) {
    const values = value.split(',').map((one) => one.trim())
    if (values.some((one) => one !== values[0])) throw parserError('several Content-Lengths', 'INVALID_CONTENT_LENGTH')
    value = values[0]!
    headers['content-length'] = value
  }
  if (!/^[0-9]{1,15}$/.test(value)) throw parserError('invalid Content-Length', 'INVALID_CONTENT_LENGTH')
  return Number(value)
}

/** NaN where there is none: no comparison holds. */
function digit(text: string, at: number): number {
  const value = text.charCodeAt(at) - 0x30
  return value >= 0 && value <= 9 ? value : Number.NaN
}

function hintMs(keepAlive: string): number {
  const timeout = /timeout=(\d{1,6})/.exec(keepAlive)
  return timeout === null ? -1 : Math.max(0, Number(timeout[1]) - 1) * 1000
}

/** RFC 9112, 9.3. */
function isPersistent(connection: string | undefined, minor: number): boolean {
  if (connection === 'keep-alive') return true
  if (connection === undefined) return minor === 1
  const options = String(connection).toLowerCase().split(',')
  if (options.some((option) => option.trim() === 'close')) return false
  return minor === 1 || options.some((option) => option.trim() === 'keep-alive')
}

/**
 * Upstreams repeat themselves: the same head, byte for byte, until the next second's Date. The last head of each length
 * is kept, so that a repeated one costs a comparison. `parse` takes the text from `from` to the empty line at `to`.
 */
export class HeadMemo {
  private readonly texts: string[] = new Array(SLOTS).fill('')
  private readonly heads: (ResponseHead | null)[] = new Array(SLOTS).fill(null)

  parse(text: string, from: number, to: number): ResponseHead {
    const slot = (to - from) & (SLOTS - 1)
    const own = text.substring(from, to)
    if (own === this.texts[slot]) return this.heads[slot]!
    const head = parseHead(own)
    this.texts[slot] = own
    this.heads[slot] = head
    return head
  }
}

const SLOTS = 32
