// The client of the end-to-end tests: a socket on which exact bytes are written and answers are parsed strictly. Not
// node:http, which would tidy up both what is sent and what is received.
import { connect, type Socket } from 'node:net'
import { connect as connectTls, type ConnectionOptions as TlsOptions } from 'node:tls'
import { type Body, ByteReader, chunkOf, framingOf, Head, quote, readBody, readChunk, readHead, write } from './wire.js'

export interface RequestParts {
  readonly version?: '1.0' | '1.1'
  readonly method?: string
  /** As it stands in the request line. */
  readonly target?: string
  /** null leaves Host out. */
  readonly host?: string | null
  /** Values as latin1: a character is a byte. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>
  readonly body?: string | Buffer
  /** Sends the body in chunks of its own choosing instead of with a length. */
  readonly chunks?: readonly (string | Buffer)[]
}

const DEFAULT_HOST = 'demo.test'

function requestHead({
  version = '1.1',
  method = 'GET',
  target = '/',
  host = DEFAULT_HOST,
  headers = {},
  body,
  chunks,
}: RequestParts): string {
  const lines = [`${method} ${target} HTTP/${version}`]
  if (host !== null) lines.push(`Host: ${host}`)
  for (const [name, value] of Object.entries(headers)) {
    for (const one of typeof value === 'string' ? [value] : value) lines.push(`${name}: ${one}`)
  }
  if (chunks !== undefined) lines.push('Transfer-Encoding: chunked')
  else if (body !== undefined) lines.push(`Content-Length: ${Buffer.byteLength(body as string)}`)
  return `${lines.join('\r\n')}\r\n\r\n`
}

export function requestBytes(parts: RequestParts): Buffer {
  const head = Buffer.from(requestHead(parts), 'latin1')
  if (parts.chunks !== undefined) return Buffer.concat([head, ...parts.chunks.map(chunkOf), Buffer.from('0\r\n\r\n')])
  return parts.body === undefined ? head : Buffer.concat([head, Buffer.from(parts.body as string)])
}

export class AnswerHead extends Head {
  readonly status: number
  readonly phrase: string

  constructor(head: Head) {
    super(head.startLine, head.fields)
    const match = /^HTTP\/1\.1 ([1-5]\d\d) ([\t -~\x80-\xff]*)$/.exec(head.startLine)
    if (match === null) throw new Error(`not a status line: ${JSON.stringify(head.startLine)}`)
    this.status = Number(match[1])
    this.phrase = match[2]!
    // What must not be said twice: a list of two is no valid value of any of these.
    for (const name of ['date', 'content-type', 'x-rid', 'location', 'retry-after', 'etag']) this.one(name)
  }
}

export class Answer extends AnswerHead {
  readonly body: Buffer
  readonly trailers: Body['trailers']
  /** Statuses of the 1xx answers before it. */
  readonly interim: readonly number[]

  constructor(head: Head, body: Body, interim: readonly number[]) {
    super(head)
    this.body = body.bytes
    this.trailers = body.trailers
    this.interim = interim
  }

  get text(): string {
    return this.body.toString()
  }

  json<T>(): T {
    return JSON.parse(this.text) as T
  }

  get rid(): string {
    return this.one('x-rid') ?? ''
  }
}

export class Connection {
  readonly reader: ByteReader
  /** Resolves however the connection goes. Reads and drops what still comes. */
  private readonly gone: Promise<void>

  private constructor(readonly socket: Socket) {
    this.reader = new ByteReader(socket)
    this.gone = new Promise((resolve) => socket.once('close', () => resolve()))
  }

  /**
   * @param tls over TLS; rejects when the handshake fails
   * @param from another loopback address to come from
   */
  static open(port: number, host = '127.0.0.1', tls?: TlsOptions, from?: string): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const to = { port, host, noDelay: true, ...(from === undefined ? {} : { localAddress: from }) }
      const socket = tls === undefined ? connect(to) : connectTls({ ...to, ...tls })
      socket.once('error', reject)
      socket.once(tls === undefined ? 'connect' : 'secureConnect', () => {
        socket.off('error', reject)
        resolve(new Connection(socket))
      })
    })
  }

  /** Resolves when the kernel has taken it all. */
  write(data: string | Buffer): Promise<void> {
    return write(this.socket, data)
  }

  send(parts: RequestParts): Promise<void> {
    return this.write(requestBytes(parts))
  }

  /** Head of the next final answer. */
  async head(interim: number[] = []): Promise<AnswerHead> {
    for (;;) {
      const head = new AnswerHead(await readHead(this.reader))
      if (head.status >= 200) return head
      interim.push(head.status)
    }
  }

  async answer(method = 'GET'): Promise<Answer> {
    const interim: number[] = []
    const head = await this.head(interim)
    const bodiless = method === 'HEAD' || head.status === 204 || head.status === 304
    if (head.status === 204 && (head.all('content-length').length > 0 || head.all('transfer-encoding').length > 0)) {
      throw new Error('a 204 says nothing of a body (RFC 9110, 8.6)')
    }
    const body = await readBody(this.reader, bodiless ? { kind: 'none' } : framingOf(head, 'close'))
    return new Answer(head, body, interim)
  }

  chunk(): Promise<Buffer | null> {
    return readChunk(this.reader)
  }

  async exchange(parts: RequestParts): Promise<Answer> {
    await this.send(parts)
    return this.answer(parts.method)
  }

  /** Resolves when the other side has ended the connection; whatever it still sends is an error. */
  async closedByPeer(): Promise<void> {
    const bytes = await this.reader.some()
    if (bytes !== null) throw new Error(`still talking: ${quote(bytes)}`)
    this.socket.destroy()
    await this.gone
  }

  destroy(): void {
    this.socket.destroy()
  }
}

/** One request on a connection of its own. */
export async function call(port: number, parts: RequestParts = {}, tls?: TlsOptions): Promise<Answer> {
  const connection = await Connection.open(port, '127.0.0.1', tls)
  try {
    const answer = await connection.exchange(parts)
    if (connection.reader.leftOver.length > 0) throw new Error(`after the answer: ${quote(connection.reader.leftOver)}`)
    return answer
  } finally {
    connection.destroy()
  }
}

/** The body of a 401, which says the same whatever was wrong. */
export const unauthorized = ({ rid }: Answer): object => ({
  type: 'about:blank',
  title: 'Unauthorized',
  status: 401,
  code: 'unauthorized',
  rid,
})
