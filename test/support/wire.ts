// HTTP/1.1 as bytes on a socket, for both ends of the tests: read on demand, so that whoever does not read holds the
// other side back, and parsed strictly, so that a peer that is merely understandable fails the test. Knows nothing of
// the gateway.
import type { Socket } from 'node:net'

/** Silence after which a test is told what it did get. Far above any deadline in a test's config. */
const SILENCE_MS = 20_000

/** The peer ended or reset the connection where more was due. */
export class ConnectionCut extends Error {}

export class ByteReader {
  silenceMs = SILENCE_MS
  private buffered: Buffer = Buffer.alloc(0)
  private ended = false
  private failure: Error | null = null
  private wake: (() => void) | null = null

  constructor(private readonly socket: Socket) {
    const wake = () => this.wake?.()
    socket.on('readable', wake)
    socket.on('end', () => {
      this.ended = true
      wake()
    })
    socket.on('error', (error) => {
      this.failure = error
      wake()
    })
    socket.on('close', () => {
      this.ended = true
      wake()
    })
  }

  /** Bytes that arrived and were not asked for yet. */
  get leftOver(): Buffer {
    return this.buffered
  }

  /** What is there, or what comes next; null at the end of the connection. */
  async some(): Promise<Buffer | null> {
    if (this.buffered.length === 0 && !(await this.fill())) return null
    const bytes = this.buffered
    this.buffered = Buffer.alloc(0)
    return bytes
  }

  async exactly(count: number): Promise<Buffer> {
    const parts: Buffer[] = []
    let missing = count
    while (missing > 0) {
      const bytes = await this.some()
      if (bytes === null) throw this.cut(`${missing} of ${count} bytes are missing`)
      parts.push(bytes.subarray(0, missing))
      this.buffered = bytes.subarray(missing)
      missing -= parts.at(-1)!.length
    }
    return Buffer.concat(parts)
  }

  /** Up to and without the delimiter, which is consumed. */
  async until(delimiter: string): Promise<Buffer> {
    for (;;) {
      const at = this.buffered.indexOf(delimiter, 0, 'latin1')
      if (at >= 0) {
        const bytes = this.buffered.subarray(0, at)
        this.buffered = this.buffered.subarray(at + delimiter.length)
        return bytes
      }
      const before = this.buffered
      this.buffered = Buffer.alloc(0)
      if (!(await this.fill())) throw this.cut(`no ${JSON.stringify(delimiter)} after ${quote(before)}`)
      this.buffered = Buffer.concat([before, this.buffered])
    }
  }

  /** Everything up to the end of the connection, which must be an orderly one. */
  async rest(): Promise<Buffer> {
    const parts: Buffer[] = []
    for (let bytes = await this.some(); bytes !== null; bytes = await this.some()) parts.push(bytes)
    if (this.failure !== null) throw this.cut('the connection did not end in order')
    return Buffer.concat(parts)
  }

  private async fill(): Promise<boolean> {
    for (;;) {
      const bytes = this.socket.read() as Buffer | null
      if (bytes !== null) {
        this.buffered = bytes
        return true
      }
      if (this.ended || this.failure !== null) return false
      await new Promise<void>((resolve, reject) => {
        const silence = setTimeout(() => reject(new Error(`nothing received for ${this.silenceMs} ms`)), this.silenceMs)
        this.wake = () => {
          clearTimeout(silence)
          this.wake = null
          resolve()
        }
      })
    }
  }

  private cut(what: string): ConnectionCut {
    return new ConnectionCut(`${what}${this.failure === null ? '' : ` (${this.failure.message})`}`)
  }
}

export function quote(bytes: Buffer): string {
  return JSON.stringify(bytes.subarray(0, 400).toString('latin1'))
}

/** Names as sent, values as latin1: a character is a byte. */
export type Fields = readonly (readonly [name: string, value: string])[]

export class Head {
  constructor(
    /** `HTTP/1.1 200 OK` or `GET / HTTP/1.1`. */
    readonly startLine: string,
    readonly fields: Fields,
  ) {}

  all(name: string): string[] {
    return this.fields.filter(([own]) => own.toLowerCase() === name).map(([, value]) => value)
  }

  /** The only value of a field; null where it is missing. */
  one(name: string): string | null {
    const values = this.all(name)
    if (values.length > 1) throw new Error(`${name} is there ${values.length} times: ${values.join(' | ')}`)
    return values[0] ?? null
  }
}

const FIELD = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*$/

function parseFields(lines: readonly string[]): Fields {
  return lines.map((line) => {
    const match = FIELD.exec(line)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there (RFC 9110, 5.5)
    if (match === null || /[\x00\r\n]/.test(line)) throw new Error(`not a field line: ${JSON.stringify(line)}`)
    return [match[1]!, match[2]!] as const
  })
}

export async function readHead(reader: ByteReader): Promise<Head> {
  const text = (await reader.until('\r\n\r\n')).toString('latin1')
  const [startLine = '', ...lines] = text.split('\r\n')
  return new Head(startLine, parseFields(lines))
}

export type Framing =
  | { readonly kind: 'none' | 'chunked' | 'close' }
  | { readonly kind: 'length'; readonly bytes: number }

/** RFC 9112, 6.3; two ways of framing at once, or one of them twice, are an error here. */
export function framingOf(head: Head, withoutEither: 'none' | 'close'): Framing {
  const coding = head.one('transfer-encoding')
  const length = head.one('content-length')
  if (coding !== null) {
    if (coding.toLowerCase() !== 'chunked') throw new Error(`transfer-encoding: ${coding}`)
    if (length !== null) throw new Error('transfer-encoding and content-length together')
    return { kind: 'chunked' }
  }
  if (length === null) return { kind: withoutEither }
  if (!/^\d+$/.test(length)) throw new Error(`content-length: ${length}`)
  return { kind: 'length', bytes: Number(length) }
}

export interface Body {
  readonly bytes: Buffer
  readonly trailers: Fields
}

export async function readBody(reader: ByteReader, framing: Framing): Promise<Body> {
  if (framing.kind === 'none') return { bytes: Buffer.alloc(0), trailers: [] }
  if (framing.kind === 'close') return { bytes: await reader.rest(), trailers: [] }
  if (framing.kind === 'length') return { bytes: await reader.exactly(framing.bytes), trailers: [] }
  const parts: Buffer[] = []
  for (let part = await readChunk(reader); part !== null; part = await readChunk(reader)) parts.push(part)
  return { bytes: Buffer.concat(parts), trailers: await readTrailers(reader) }
}

/** Null for the last chunk, after which trailers follow. */
export async function readChunk(reader: ByteReader): Promise<Buffer | null> {
  const size = (await reader.until('\r\n')).toString('latin1')
  if (!/^[0-9A-Fa-f]+$/.test(size)) throw new Error(`chunk size ${JSON.stringify(size)}`)
  const bytes = Number.parseInt(size, 16)
  if (bytes === 0) return null
  const chunk = await reader.exactly(bytes)
  if ((await reader.exactly(2)).toString('latin1') !== '\r\n') throw new Error('no CRLF after a chunk')
  return chunk
}

async function readTrailers(reader: ByteReader): Promise<Fields> {
  const lines: string[] = []
  for (;;) {
    const line = (await reader.until('\r\n')).toString('latin1')
    if (line === '') return parseFields(lines)
    lines.push(line)
  }
}

export function chunkOf(data: string | Buffer): Buffer {
  const bytes = Buffer.from(data as string)
  return Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n')])
}

export function write(socket: Socket, data: string | Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    socket.write(typeof data === 'string' ? Buffer.from(data, 'latin1') : data, (error) =>
      error ? reject(new ConnectionCut(error.message)) : resolve(),
    )
  })
}
