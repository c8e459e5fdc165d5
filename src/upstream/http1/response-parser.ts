// HTTP/1.1 responses from the bytes of one connection, in any split (RFC 9112, 4 to 7). Knows nothing of sockets and
// requests; fuzzed against undici. Runs per read.
//
//   HEAD ─┬─ EMPTY_LF ─ HEAD (an empty line before it)
//         ├─ no body ────────────────────────────────┐
//         ├─ LENGTH ─────────────────────────────────┤
//         ├─ CLOSE (until the connection ends)       ├─ END ─ HEAD …
//         └─ SIZE ─ EXTENSION ─ SIZE_LF ─┬─ TRAILERS ┘
//             └─ DATA_LF ─ DATA_CR ─ DATA ┘
import type { IncomingHttpHeaders } from 'node:http'
import { errors, parserError } from '../undici.js'
import { checkFields, type HeadMemo, parseHead, type ResponseHead } from './response-head.js'

declare global {
  interface Buffer {
    /** toString('latin1', start, end) without its checks. */
    latin1Slice(start?: number, end?: number): string
  }
}

/** Who takes what the parser finds. Each may call stop(): the rest of the bytes then waits for the next execute. */
export interface ResponseSink {
  /** Bytes came: is a response due? */
  expects(): boolean
  /** Returns whether a body must not follow whatever the head says: the request was HEAD. */
  onHead(head: ResponseHead): boolean
  /** `chunk` is a view into the bytes given to execute. */
  onData(chunk: Buffer): void
  onEnd(trailers: IncomingHttpHeaders): void
  /**
   * The same head came twice in a row: returns how bytes that begin with it will be marked, if at all. `text` is all of
   * it.
   */
  onRepeated(text: string): number
}

const HEAD = 0
const LENGTH = 1
const CLOSE = 2
const SIZE = 3
const EXTENSION = 4
const SIZE_LF = 5
const DATA = 6
const DATA_CR = 7
const DATA_LF = 8
const TRAILERS = 9
const END = 10
const EMPTY_LF = 11

/** Read as text at once in search of a head's end; longer heads are read again. */
const WINDOW = 2048
const MAX_EXTENSION = 1024
const EXTENSIONS =
  /^(?:;[!#$%&'*+.^_`|~0-9A-Za-z-]+(?:=(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|"(?:[\t !#-[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"))?)+$/
const noTrailers: IncomingHttpHeaders = Object.freeze({})

export class ResponseParser {
  stopped = false
  private state = HEAD
  /** Of a head or trailers whose end has not come. */
  private partial = ''
  /** Where the first line of `partial` begins that is not checked yet. */
  private unchecked = 0
  /** Of the body or the chunk. */
  private remaining = 0
  private sizeDigits = 0
  private extension = ''
  private trailers = noTrailers
  /** Data of the chunks in one read, moved together, to be handed over as one piece. */
  private gatheredFrom = 0
  private gatheredTo = 0
  private last: ResponseHead | null = null
  /** How bytes are marked that begin with the last head, and how long that is. */
  private mark = 0
  private markedBytes = 0
  private readonly sink: ResponseSink
  private readonly memo: HeadMemo
  private readonly maxHeadBytes: number

  constructor(sink: ResponseSink, memo: HeadMemo, maxHeadBytes: number) {
    this.sink = sink
    this.memo = memo
    this.maxHeadBytes = maxHeadBytes
  }

  /** Between two responses: not one byte of the next has come. */
  get idle(): boolean {
    return this.state === HEAD && this.partial === ''
  }

  /**
   * Parses bytes[from, end) until the sink stops it or they end; returns where. Throws undici's errors for what is not
   * HTTP. `mark`: what they are known to begin with, as onRepeated() has named it; else 0.
   */
  execute(bytes: Buffer, from: number, end: number, mark = 0): number {
    let at = from
    if (mark !== 0 && mark === this.mark && this.idle && !this.stopped) at = this.repeatHead(at)
    try {
      while (!this.stopped) {
        if (this.state === END) {
          if (this.handOver(bytes)) this.finish()
        } else if (at < end) at = this.step(bytes, at, end)
        else if (this.handOver(bytes)) return at
      }
    } catch (error) {
      // The sink gets the sound bytes before the error.
      this.handOver(bytes)
      throw error
    }
    return at
  }

  /** False: the sink has stopped the parser. */
  private handOver(bytes: Buffer): boolean {
    const { gatheredFrom, gatheredTo } = this
    if (gatheredFrom === gatheredTo) return true
    this.gatheredFrom = this.gatheredTo = 0
    this.sink.onData(bytes.subarray(gatheredFrom, gatheredTo))
    return !this.stopped
  }

  /**
   * The connection ended in order. True where that ends a response, false where one is cut short; throws for a wrong
   * length.
   */
  eof(): boolean {
    if (this.state === LENGTH) throw new errors.ResponseContentLengthMismatchError()
    if (this.state !== CLOSE) return false
    this.finish()
    return true
  }

  private step(bytes: Buffer, at: number, end: number): number {
    switch (this.state) {
      case HEAD:
        return this.readHead(bytes, at, end)
      case LENGTH:
        return this.readData(bytes, at, end, END)
      case DATA:
        return this.readData(bytes, at, end, DATA_CR)
      case CLOSE:
        this.sink.onData(bytes.subarray(at, end))
        return end
      case SIZE:
        return this.readSize(bytes, at, end)
      case EXTENSION:
        return this.readExtension(bytes, at, end)
      case TRAILERS:
        return this.readTrailers(bytes, at, end)
      default:
        return this.readDelimiter(bytes[at]!, at)
    }
  }

  private finish(): void {
    const trailers = this.trailers
    this.state = HEAD
    this.trailers = noTrailers
    this.sink.onEnd(trailers)
  }

  private readHead(bytes: Buffer, at: number, end: number): number {
    if (!this.sink.expects()) throw new errors.SocketError('bytes without a request')
    const before = this.partial.length
    if (before === 0 && bytes[at] === 0x0d) {
      // RFC 9112, 2.2 grants empty lines before a request line. Some upstreams send one behind a 100 or a body: nginx
      // and HAProxy let it be.
      this.state = EMPTY_LF
      return at + 1
    }
    let text = bytes.latin1Slice(at, Math.min(end, at + WINDOW))
    if (before > 0) text = this.partial + text
    let stop = text.indexOf('\r\n\r\n', Math.max(0, before - 3))
    if (stop < 0 && end - at > WINDOW) {
      text = this.partial + bytes.latin1Slice(at, Math.min(end, at + this.maxHeadBytes + 4))
      stop = text.indexOf('\r\n\r\n', Math.max(0, before - 3))
    }
    if (stop < 0 || stop > this.maxHeadBytes) {
      this.keepPartial(text)
      this.unchecked = checkPartialHead(text, this.unchecked)
      return end
    }
    this.partial = ''
    this.unchecked = 0
    const head = this.memo.parse(text, 0, stop)
    if (head !== this.last) this.mark = 0
    else if (this.mark === 0) {
      this.markedBytes = stop + 4
      this.mark = this.sink.onRepeated(text.substring(0, stop + 4))
    }
    this.last = head
    this.begin(head)
    return at + stop + 4 - before
  }

  private repeatHead(at: number): number {
    if (!this.sink.expects()) throw new errors.SocketError('bytes without a request')
    this.begin(this.last!)
    return at + this.markedBytes
  }

  private keepPartial(text: string): void {
    if (text.length > this.maxHeadBytes) throw new errors.HeadersOverflowError()
    this.partial = text
  }

  /** RFC 9112, 6.3. */
  private begin(head: ResponseHead): void {
    const { status } = head
    const bodyless = this.sink.onHead(head)
    if (status < 200) return
    if (bodyless || status === 204 || status === 304 || head.length === 0) this.state = END
    else if (head.chunked) this.beginChunk()
    else if (head.length > 0) {
      this.remaining = head.length
      this.state = LENGTH
    } else this.state = CLOSE
  }

  private beginChunk(): void {
    this.remaining = 0
    this.sizeDigits = 0
    this.state = SIZE
  }

  private readData(bytes: Buffer, at: number, end: number, next: number): number {
    const stop = Math.min(end, at + this.remaining)
    this.remaining -= stop - at
    if (this.remaining === 0) this.state = next
    if (next === DATA_CR) this.gather(bytes, at, stop)
    else this.sink.onData(bytes.subarray(at, stop))
    return stop
  }

  /**
   * Moves the chunks of one read together, over their framing: a write to the client for each costs more than the bytes
   * do.
   */
  private gather(bytes: Buffer, at: number, stop: number): void {
    if (this.gatheredFrom === this.gatheredTo) {
      this.gatheredFrom = at
      this.gatheredTo = stop
      return
    }
    bytes.copyWithin(this.gatheredTo, at, stop)
    this.gatheredTo += stop - at
  }

  private readSize(bytes: Buffer, from: number, end: number): number {
    let at = from
    for (; at < end; at++) {
      const value = hexValue(bytes[at]!)
      if (value < 0) break
      // 13 digits are 4 PiB, and still exact.
      if (++this.sizeDigits > 13) throw parserError('chunk size overflow', 'INVALID_CHUNK_SIZE')
      this.remaining = this.remaining * 16 + value
    }
    if (at === end) return at
    if (this.sizeDigits === 0) throw parserError('no chunk size', 'INVALID_CHUNK_SIZE')
    if (bytes[at] === 0x0d) {
      this.state = SIZE_LF
      return at + 1
    }
    if (bytes[at] !== 0x3b) throw parserError('invalid chunk size', 'INVALID_CHUNK_SIZE')
    this.extension = ''
    this.state = EXTENSION
    return at
  }

  private readExtension(bytes: Buffer, at: number, end: number): number {
    let stop = bytes.indexOf(0x0d, at)
    if (stop < 0 || stop > end) stop = end
    this.extension += bytes.latin1Slice(at, stop)
    if (this.extension.length > MAX_EXTENSION) throw parserError('chunk extension too long', 'INVALID_CHUNK_SIZE')
    if (stop === end) return end
    if (!EXTENSIONS.test(this.extension)) throw parserError('invalid chunk extension', 'INVALID_CHUNK_SIZE')
    this.state = SIZE_LF
    return stop + 1
  }

  private readDelimiter(byte: number, at: number): number {
    if (this.state === EMPTY_LF) {
      if (byte !== 0x0a) throw parserError('bare CR', 'CR_EXPECTED')
      this.state = HEAD
      return at + 1
    }
    if (byte !== (this.state === DATA_CR ? 0x0d : 0x0a)) throw parserError('CRLF expected around a chunk', 'STRICT')
    if (this.state === DATA_CR) this.state = DATA_LF
    else if (this.state === DATA_LF) this.beginChunk()
    else this.state = this.remaining === 0 ? TRAILERS : DATA
    return at + 1
  }

  private readTrailers(bytes: Buffer, at: number, end: number): number {
    const before = this.partial.length
    const text = this.partial + bytes.latin1Slice(at, Math.min(end, at + this.maxHeadBytes + 4))
    const stop = text.startsWith('\r\n') ? -2 : text.indexOf('\r\n\r\n', Math.max(0, before - 3))
    if (stop === -1 || stop > this.maxHeadBytes) {
      this.keepPartial(text)
      return end
    }
    this.partial = ''
    this.state = END
    if (stop >= 0) this.trailers = parseTrailers(text.substring(0, stop))
    return at + stop + 4 - before
  }
}

function parseTrailers(text: string): IncomingHttpHeaders {
  // parseHead is where a field block is held against the grammar; a trailer section is one behind a status line.
  return parseHead(`HTTP/1.1 200\r\n${text}`).headers
}

/**
 * What is wrong already is wrong now: an upstream that does not speak HTTP need not close for us to know. Checks the
 * lines from `from` on, so that each is read once in however many pieces a head comes. Returns where the first
 * incomplete line begins.
 */
function checkPartialHead(text: string, from: number): number {
  if (!(text.length < 7 ? 'HTTP/1.'.startsWith(text) : text.startsWith('HTTP/1.'))) {
    throw parserError('not an HTTP/1 response', 'INVALID_CONSTANT')
  }
  const last = text.lastIndexOf('\n')
  if (last < from) return from
  if (text.charCodeAt(last - 1) !== 13) throw parserError('bare LF', 'CR_EXPECTED')
  const lines = text.substring(from, last - 1)
  if (from === 0) parseHead(lines)
  else checkFields(lines)
  return last + 1
}

function hexValue(byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const lower = byte | 0x20
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1
}
