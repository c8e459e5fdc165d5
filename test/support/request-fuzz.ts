// Requests as nobody would send them: good ones and those of framing-cases.mjs, cut, doubled, spliced and with bytes changed, each from a
// number of its own so that it can be made again; sent on many connections at once, to a service that reads strictly.
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { CLASSES, SERVED } from './framing-cases.mjs'
import { ByteReader, framingOf, readBody, readHead } from './wire.js'

const AT_ONCE = 64
/** A request that is not answered within this is taken for incomplete. */
const SILENCE_MS = 60
/** After a refusal the connection ends; a busy machine is given time for that. */
const REFUSALS = new Set(['400', '413', '431', '505'])
const CLOSING_MS = 5_000
/** Some of those are left open, to see that they do not stay so. */
const MOST_LEFT_OPEN = 500

const good = [
  'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n',
  'GET /a/../b//c?x=%20&y HTTP/1.1\r\nHost: a.test\r\nAccept: */*\r\nCookie: a=1; b="2"\r\n\r\n',
  'HEAD /x HTTP/1.1\r\nHost: b.test:81\r\nConnection: keep-alive\r\n\r\n',
  'POST /signed HTTP/1.1\r\nHost: a.test\r\nx-source: test\r\nx-time: 1\r\nx-m: abc\r\nContent-Length: 3\r\n\r\nabc',
  'PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello',
  'POST / HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n10\r\n0123456789abcdef\r\n0\r\nX: y\r\n\r\n',
  'GET / HTTP/1.1\r\nHost: a.test\r\nForwarded: for=1\r\nX-Forwarded-For: 1, 2\r\ntraceparent: 00-1-2-01\r\nConnection: close, x\r\n\r\n',
]
const corpus = [...good, ...CLASSES.flatMap(({ requests }) => requests), ...SERVED.map(({ request }) => request)]
  .filter((request) => request.length < 4000)
  .map((request) => Buffer.from(request, 'latin1'))

const words = [
  '\r\n', '\r\n\r\n', '\n', '\r', '\0', '\t', ' ', ':', ';', ',', '/', '//', '/../', '/%2e%2e/', '%2F', '%00', '%', '#', '?', '\\', '@',
  '\xff', '\xef\xbb\xbf', '0', '0\r\n\r\n', 'ffffffffffffffff', '-1', '+1', '0x', '1\r\na\r\n', 'chunked', 'identity', 'Host: b.test\r\n',
  'Content-Length: 5\r\n', 'Content-Length: 0\r\n', 'Transfer-Encoding: chunked\r\n', 'Connection: close\r\n', 'Connection: host, x-rid\r\n',
  'Upgrade: websocket\r\n', 'X_Y: z\r\n', ' HTTP/1.1\r\n', 'HTTP/1.0', 'GET / HTTP/1.1\r\nHost: a.test\r\n\r\n', 'OPTIONS * ', 'http://a.test',
].map((word) => Buffer.from(word, 'latin1')) // biome-ignore format: a list of words

/** mulberry32. */
function numbers(seed: number): (below: number) => number {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % below
  }
}

/** The bytes of one number. */
export function mutant(seed: number): Buffer {
  const next = numbers(seed)
  const pick = <T>(list: readonly T[]): T => list[next(list.length)]!
  // A third as they are: what is forwarded must be among what is not.
  let bytes = next(3) === 0 ? Buffer.from(good[next(good.length)]!, 'latin1') : pick(corpus)
  for (let changes = next(3) === 0 ? 0 : 1 + next(4); changes > 0; changes--) {
    const at = next(bytes.length + 1)
    const to = Math.min(bytes.length, at + next(next(4) === 0 ? 200 : 8))
    const before = bytes.subarray(0, at)
    switch (next(7)) {
      case 0:
        bytes = Buffer.concat([before, Buffer.from([next(256)]), bytes.subarray(at + 1)])
        break
      case 1:
        bytes = Buffer.concat([before, bytes.subarray(to)])
        break
      case 2:
        bytes = Buffer.concat([before, bytes.subarray(at, to), bytes.subarray(at)])
        break
      case 3:
        bytes = Buffer.concat([before, pick(corpus).subarray(next(60))])
        break
      case 4:
        bytes = Buffer.concat([bytes, pick(corpus)])
        break
      default:
        bytes = Buffer.concat([before, pick(words), bytes.subarray(next(2) === 0 ? at : to)])
    }
  }
  return bytes
}

export interface StrictOrigin {
  readonly url: string
  /** Request ids of all that came, and how often. */
  readonly rids: Map<string, number>
  /** What no gateway may send. */
  readonly faults: string[]
  close(): void
}

export async function startStrictOrigin(): Promise<StrictOrigin> {
  const rids = new Map<string, number>()
  const faults: string[] = []
  const server = createServer({ noDelay: true }, async (socket) => {
    socket.on('error', () => {})
    const reader = new ByteReader(socket)
    reader.silenceMs = 600_000
    try {
      for (;;) {
        const head = await readHead(reader)
        const rid = head.one('x-rid') ?? ''
        rids.set(rid, (rids.get(rid) ?? 0) + 1)
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
        await readBody(reader, framingOf(head, 'none'))
        socket.write(
          method === 'HEAD'
            ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n'
            : 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
        )
      }
    } catch (error) {
      // A request that was cut short is what a client that leaves makes of it; one that is malformed is the gateway's fault.
      if ((error as Error).constructor === Error) faults.push((error as Error).message)
      socket.destroy()
    }
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    rids,
    faults,
    close: () => server.close(),
  }
}

export interface FuzzRun {
  sent: number
  /** How often each status came; 0 for connections that were closed without one. */
  readonly statuses: Map<string, number>
  /** Of statuses that are not `expected`: the number they are made from. */
  readonly unexpected: string[]
  /** Connections on which nothing came, and was not to come: each is gone some time. */
  readonly leftOpen: { readonly socket: Socket; readonly gone: Promise<void> }[]
}

/** Sends mutants `from`, `from` + 1 … until `until` says so. */
export async function fuzz(
  port: number,
  from: number,
  expected: ReadonlySet<string>,
  until: (sent: number) => boolean,
): Promise<FuzzRun> {
  const run: FuzzRun = { sent: 0, statuses: new Map(), unexpected: [], leftOpen: [] }
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (!until(run.sent)) await oneConnection()
    }),
  )
  return run

  /** Request after request, as long as there are answers. */
  function oneConnection(): Promise<void> {
    return new Promise((resolve) => {
      const socket = connect({
        port,
        host: '127.0.0.1',
        noDelay: true,
        localAddress: `127.0.0.${1 + (run.sent % 200)}`,
      })
      socket.setEncoding('latin1')
      let seed = 0
      let refused = false
      let silence: NodeJS.Timeout | undefined
      const send = () => {
        seed = from + run.sent++
        const bytes = mutant(seed)
        const cut = seed % 3 === 0 ? seed % (bytes.length + 1) : 0
        if (cut > 0) socket.write(bytes.subarray(0, cut))
        setImmediate(() => socket.write(bytes.subarray(cut)))
        clearTimeout(silence)
        silence = setTimeout(giveUp, SILENCE_MS)
      }
      const giveUp = () => {
        if (run.leftOpen.length < MOST_LEFT_OPEN) {
          run.leftOpen.push({ socket, gone: new Promise((gone) => socket.once('close', () => gone())) })
          socket.removeAllListeners('data').resume()
        } else socket.resetAndDestroy()
        resolve()
      }
      const stillOpen = () => {
        if (refused) run.unexpected.push(`an open connection after the refusal of ${seed}`)
        socket.destroy()
      }
      socket.on('connect', send)
      socket.on('error', () => {})
      socket.on('close', () => {
        clearTimeout(silence)
        resolve()
      })
      socket.on('data', (text: string) => {
        const announced = /\r\nconnection: close\r\n/i.test(text)
        for (const [, status] of text.matchAll(/HTTP\/1\.1 (\d{3}) /g)) {
          run.statuses.set(status!, (run.statuses.get(status!) ?? 0) + 1)
          if (!expected.has(status!)) run.unexpected.push(`${status} to ${seed}`)
          refused ||= REFUSALS.has(status!)
        }
        clearTimeout(silence)
        if (refused || announced) silence = setTimeout(stillOpen, CLOSING_MS)
        else if (!until(run.sent)) send()
        else {
          socket.resetAndDestroy()
          resolve()
        }
      })
    })
  }
}
