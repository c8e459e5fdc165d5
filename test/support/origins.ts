// The services behind the gateway in the end-to-end tests: one on node:http that tells what it was asked, and one on
// bare sockets that does whatever a script says, down to dying in the middle of a header.
import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createHttpServer, type RequestListener } from 'node:http'
import { createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import type { TLSSocket, TlsOptions } from 'node:tls'
import { Lines } from './lines.js'
import { type Body, ByteReader, chunkOf, framingOf, type Head, readBody, readHead, write } from './wire.js'

/** What the echo origin saw of a request, and its answer's body. */
export interface Seen {
  readonly method: string
  readonly url: string
  /** As they came: name, value, name, value … values as latin1. */
  readonly rawHeaders: readonly string[]
  readonly bodyBytes: number
  readonly bodySha256: string
  readonly trailers: readonly string[]
  /** Over TLS: the name that was asked for, and the one in the gateway's certificate. */
  readonly serverName?: string
  readonly clientName?: string
}

export interface Origin {
  /** `http://127.0.0.1:PORT`, as an endpoint of a service. */
  readonly url: string
  readonly port: number
  readonly requests: Lines<Seen>
  /** Connections opened so far. */
  readonly connections: number
  /** Received so far, on all of them. */
  readonly bytes: number
  close(): Promise<void>
}

export function headerOf(seen: Pick<Seen, 'rawHeaders'>, name: string): string[] {
  const values: string[] = []
  for (let i = 0; i < seen.rawHeaders.length; i += 2) {
    if (seen.rawHeaders[i]!.toLowerCase() === name) values.push(seen.rawHeaders[i + 1]!)
  }
  return values
}

export function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}

export interface EchoOptions {
  /** Added to every answer. */
  readonly headers?: Readonly<Record<string, string | string[]>>
  /** Asked with each request: the status to answer with. */
  readonly status?: (path: string) => number
  /** A given port instead of any free one. */
  readonly port?: number
  /** Listens on a Unix socket of that path, and on no port. */
  readonly path?: string
  /** Speaks TLS. */
  readonly tls?: TlsOptions
}

/** Answers any request with what it saw, as JSON. */
export async function startEcho({
  headers = {},
  status = () => 200,
  port = 0,
  path,
  tls,
}: EchoOptions = {}): Promise<Origin> {
  const requests = new Lines<Seen>('request')
  let connections = 0
  const answer: RequestListener = (request, response) => {
    const hash = createHash('sha256')
    let bodyBytes = 0
    request.on('data', (chunk: Buffer) => {
      hash.update(chunk)
      bodyBytes += chunk.length
    })
    request.on('end', () => {
      const { method = '', url = '', rawHeaders, rawTrailers } = request
      const seen: Seen = { method, url, rawHeaders, bodyBytes, bodySha256: hash.digest('hex'), trailers: rawTrailers }
      if (tls !== undefined) Object.assign(seen, namesOf(request.socket as TLSSocket))
      requests.push(seen)
      response.writeHead(status(url), { 'content-type': 'application/json', ...headers })
      response.end(JSON.stringify(seen))
    })
    request.on('error', () => {})
  }
  const server = tls === undefined ? createHttpServer(answer) : createHttpsServer(tls, answer)
  server.on('connection', () => {
    connections++
  })
  // The gateway lets go of idle connections first.
  server.keepAliveTimeout = 60_000
  const origin = {
    requests,
    get connections() {
      return connections
    },
  }
  return listen(server, path ?? port, origin, tls === undefined ? 'http://127.0.0.1' : 'https://localhost')
}

function namesOf(socket: TLSSocket): Pick<Seen, 'serverName' | 'clientName'> {
  const cn = socket.getPeerCertificate().subject?.CN
  return { serverName: socket.servername || '', ...(cn !== undefined && { clientName: cn }) }
}

/** A request at the scripted origin, and the socket it came on. */
export class RawExchange {
  readonly method: string
  readonly target: string
  readonly query: URLSearchParams

  constructor(
    readonly socket: Socket,
    readonly reader: ByteReader,
    readonly head: Head,
  ) {
    const [method = '', target = ''] = head.startLine.split(' ')
    this.method = method
    this.target = target
    this.query = new URL(target, 'http://origin').searchParams
  }

  body(): Promise<Body> {
    return readBody(this.reader, framingOf(this.head, 'none'))
  }

  send(data: string | Buffer): Promise<void> {
    return write(this.socket, data)
  }

  /** A whole answer. */
  answer(status: number, headers: Readonly<Record<string, string>> = {}, body = ''): Promise<void> {
    const lines = Object.entries({ 'Content-Length': String(Buffer.byteLength(body)), ...headers })
    return this.send(`HTTP/1.1 ${status} Scripted\r\n${lines.map(([n, v]) => `${n}: ${v}\r\n`).join('')}\r\n${body}`)
  }

  chunk(data: string | Buffer): Promise<void> {
    return this.send(chunkOf(data))
  }

  /** RST. */
  reset(): void {
    this.socket.resetAndDestroy()
  }

  /** FIN. */
  end(): void {
    this.socket.end()
  }

  /** Resolves when the gateway has let go of the connection. */
  closed(): Promise<void> {
    return new Promise((resolve) => {
      if (this.socket.closed) return resolve()
      this.socket.once('close', () => resolve())
      this.socket.resume()
    })
  }
}

/** What to do with a request. When it returns with the socket open, the next request is read from it. */
export type Script = (exchange: RawExchange) => void | Promise<void>

const readAndAnswer: Script = async (exchange) => {
  await exchange.body()
  await exchange.answer(200)
}

/**
 * `scripts` by path, query aside. A path without a script is answered 200. `place`: a port, or the path of a Unix
 * socket.
 */
export async function startScripted(
  scripts: Readonly<Record<string, Script>>,
  place: number | string = 0,
): Promise<Origin> {
  const requests = new Lines<Seen>('request')
  let connections = 0
  const server = createServer({ noDelay: true }, (socket) => {
    connections++
    serve(socket).catch(() => socket.destroy())
  })

  async function serve(socket: Socket): Promise<void> {
    const reader = new ByteReader(socket)
    while (!socket.destroyed) {
      const exchange = new RawExchange(socket, reader, await readHead(reader))
      const { method, target, head } = exchange
      const rawHeaders = head.fields.flat()
      requests.push({ method, url: target, rawHeaders, bodyBytes: -1, bodySha256: '', trailers: [] })
      await (scripts[target.split('?')[0]!] ?? readAndAnswer)(exchange)
    }
  }

  return listen(server, place, {
    requests,
    get connections() {
      return connections
    },
  })
}

function listen(
  server: Server,
  place: number | string,
  rest: Pick<Origin, 'requests' | 'connections'>,
  origin = 'http://127.0.0.1',
): Promise<Origin> {
  const sockets = new Set<Socket>()
  let bytes = 0
  server.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => {
      sockets.delete(socket)
      bytes += socket.bytesRead
    })
  })
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    const listening = (): void => {
      const own = typeof place === 'string' ? 0 : (server.address() as AddressInfo).port
      resolve({
        url: typeof place === 'string' ? `unix:${place}` : `${origin}:${own}`,
        port: own,
        requests: rest.requests,
        get connections() {
          return rest.connections
        },
        get bytes() {
          return [...sockets].reduce((sum, socket) => sum + socket.bytesRead, bytes)
        },
        close: () =>
          new Promise((done) => {
            server.close(() => done())
            for (const socket of sockets) socket.destroy()
          }),
      })
    }
    if (typeof place === 'string') server.listen(place, listening)
    else server.listen(place, '127.0.0.1', listening)
  })
}

/**
 * A port of the loopback address that refuses connections for as long as this process lives: the local one of a
 * connection to ourselves, so that it is taken and nobody else can come to listen on it.
 */
export async function refusingPort(): Promise<number> {
  const server = createServer((socket) => socket.unref()).unref()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1').unref()
  await once(socket, 'connect')
  return socket.localPort!
}

/** Listens and never accepts: its queue is full, so that whoever comes next gets no answer to the SYN. */
export async function startDeaf(): Promise<{ readonly port: number; close(): void }> {
  const program = `const server = require('node:net').createServer()
    server.listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => console.log(server.address().port))`
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [line] = (await once(child.stdout, 'data')) as [Buffer]
  const port = Number(line.toString())
  child.kill('SIGSTOP')
  // Linux queues one more than the backlog.
  const queued = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')]
  await Promise.all(queued.map((socket) => once(socket, 'connect')))
  return {
    port,
    close: () => {
      for (const socket of queued) socket.destroy()
      child.kill('SIGKILL')
    },
  }
}
