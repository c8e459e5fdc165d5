// A service that takes nothing but what is beyond doubt, and says with each answer what it has got. Which kind of
// answer that is, its path says.
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { seenAs } from './strict-reading.js'
import { turns } from './waiting.js'
import { ByteReader, framingOf, readBody, readHead } from './wire.js'

export interface StrictOrigin {
  readonly url: string
  /** Request ids of all that came. */
  readonly rids: Set<string>
  /** What no gateway may send. */
  readonly faults: string[]
  close(): void
}

export async function startStrictOrigin(): Promise<StrictOrigin> {
  const rids = new Set<string>()
  const faults: string[] = []
  const server = createServer({ noDelay: true }, (socket) => void serve(socket))

  async function serve(socket: Socket): Promise<void> {
    socket.on('error', () => {})
    const reader = new ByteReader(socket)
    reader.silenceMs = 600_000
    try {
      for (;;) {
        const head = await readHead(reader)
        const rid = head.one('x-rid') ?? ''
        if (rid === '' || rids.has(rid)) faults.push(`${rid}: twice, or of no request: ${head.startLine}`)
        rids.add(rid)
        const [method = '', target = '', version, ...more] = head.startLine.split(' ')
        if (
          version !== 'HTTP/1.1' ||
          more.length > 0 ||
          !/^\/[\x21-\x7e]*$/.test(target) ||
          /\/\/|\/\.\.?(\/|$)/.test(target.split('?')[0]!)
        ) {
          faults.push(`${rid}: ${head.startLine}`)
        }
        if (head.one('host') === null || /_/.test(head.fields.map(([name]) => name).join()))
          faults.push(`${rid}: ${JSON.stringify(head.fields)}`)
        const body = await readBody(reader, framingOf(head, 'none'))
        await answer(socket, method, target, `X-Seen: ${seenAs(method, target, body.bytes)}\r\n`)
      }
    } catch (error) {
      // A request that was cut short is what a client that leaves makes of it; one that is malformed is the gateway's
      // fault.
      if ((error as Error).constructor === Error) faults.push((error as Error).message)
      socket.destroy()
    }
  }

  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    rids,
    faults,
    close: () => server.close(),
  }
}

async function answer(socket: Socket, method: string, target: string, fields: string): Promise<void> {
  const isChunked = target.startsWith('/c')
  const head = `HTTP/1.1 200 OK\r\n${fields}${isChunked ? 'Transfer-Encoding: chunked' : 'Content-Length: 2'}\r\n\r\n`
  if (method === 'HEAD') socket.write(head)
  else if (!isChunked && !target.startsWith('/l')) socket.write(`${head}ok`)
  else {
    for (const part of [head, ...(isChunked ? ['1\r\no\r\n', '1\r\nk\r\n', '0\r\n\r\n'] : ['o', 'k'])]) {
      socket.write(part)
      await turns(1)
    }
  }
}
