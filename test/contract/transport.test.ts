// One suite for both transports under the lean client, over TCP and over Unix sockets: what is told of a connection,
// in which order, and what of what is written arrives.
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterEach, describe, expect, test } from 'vitest'
import type { Listener, Transport, Wire } from '../../src/upstream/http1/transport.js'
import { fillBacklog } from '../support/full-backlog.js'
import { temporaryFolder } from '../support/gateway.js'
import { refusingPort } from '../support/origins.js'
import { transports } from '../support/upstream-clients.js'
import { eventually } from '../support/waiting.js'

const cleanup: (() => unknown)[] = []
afterEach(async () => {
  for (const close of cleanup.splice(0).reverse()) await close()
})

type Over = 'TCP' | 'a Unix socket'
/** A port, or the path of a Unix socket. */
type Place = number | string

const socketPath = (): string => join(temporaryFolder(), 'socket')

/** What each connection gets to see of the other end. */
async function listenOver(over: Over, onConnection: (socket: Socket) => void): Promise<Place> {
  const sockets = new Set<Socket>()
  const server = createServer({ noDelay: true }, (socket) => {
    sockets.add(socket.on('error', () => {}))
    onConnection(socket)
  })
  const path = over === 'TCP' ? null : socketPath()
  if (path === null) server.listen(0, '127.0.0.1')
  else server.listen(path)
  await once(server, 'listening')
  cleanup.push(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return path ?? (server.address() as AddressInfo).port
}

/** The other end sees an error or the end: a Unix socket has no reset of its own. */
const reset = (socket: Socket): unknown =>
  socket.remotePort === undefined ? socket.destroy() : socket.resetAndDestroy()

/** Writes down what it is told; a test may add to each. */
class Recorder implements Listener {
  readonly wire: Wire
  readonly told: string[] = []
  text = ''
  readonly marks: number[] = []
  closed = false
  error: NodeJS.ErrnoException | null = null
  outgoing: string[] = []
  react: (what: string) => void = () => {}
  private readonly waits: [RegExp, () => void][] = []

  constructor(transport: Transport, place: Place, host = '127.0.0.1') {
    this.wire = typeof place === 'string' ? transport.connectUnix(place, this) : transport.connect(host, place, this)
    cleanup.push(() => this.close())
  }

  close(): void {
    this.closed = true
    this.wire.close()
  }

  send(text: string): void {
    this.outgoing.push(text)
    this.wire.flushLater()
  }

  /** Once what it was told, one after the other, matches. */
  async heard(what: RegExp): Promise<void> {
    if (what.test(this.told.join(' '))) return
    await new Promise<void>((resolve) => this.waits.push([what, resolve]))
  }

  private tell(what: string): void {
    expect(this.closed).toBe(false)
    this.told.push(what)
    this.react(what)
    for (const [wanted, resolve] of this.waits) if (wanted.test(this.told.join(' '))) resolve()
  }

  onConnect(): void {
    this.tell('connect')
  }
  onBytes(bytes: Buffer, at: number, end: number, mark: number): void {
    this.marks.push(mark)
    this.text += bytes.latin1Slice(at, end)
    this.tell('bytes')
  }
  onEof(): void {
    this.tell('eof')
  }
  onError(error: Error): void {
    this.error = error
    this.tell('error')
  }
  onDrain(): void {
    this.tell('drain')
  }
  flush(): void {
    for (const text of this.outgoing.splice(0)) this.wire.send(text)
  }
}

const echo = (socket: Socket): unknown => socket.pipe(socket)
const nothing = Buffer.alloc(0)

const suites = transports.flatMap((one) => (['TCP', 'a Unix socket'] as const).map((over) => ({ ...one, over })))

describe.each(suites)('a connection over $name and $over', ({ transport, over }) => {
  const open = (place: Place, host?: string): Recorder => new Recorder(transport, place, host)
  const listen = (onConnection: (socket: Socket) => void): Promise<Place> => listenOver(over, onConnection)

  test('what is sent arrives, a byte a character', async () => {
    const one = open(await listen(echo))
    await one.heard(/connect/)
    const text = Array.from({ length: 256 }, (_, i) => String.fromCharCode(i)).join('')
    one.react = () => one.text === text && one.told.push('all')
    one.send(text)
    await one.heard(/all/)
    expect(one.told[0]).toBe('connect')
  })

  test('texts sent in the same turn find whom they are for', async () => {
    const port = await listen((socket) => {
      let got = ''
      socket.setEncoding('latin1').on('data', (text: string) => {
        got += text
        if (got.endsWith('.')) socket.end(got)
      })
    })
    const many = Array.from({ length: 200 }, () => open(port))
    await Promise.all(many.map((one) => one.heard(/connect/)))
    const texts = many.map((_, i) => [`${i}: `, 'x'.repeat((i % 20) * 97), '.'])
    for (const [i, one] of many.entries()) for (const text of texts[i]!) one.send(text)
    await Promise.all(many.map((one) => one.heard(/eof/)))
    expect(many.map((one) => one.text)).toEqual(texts.map((parts) => parts.join('')))
  })

  test('more than is read in one turn finds whom it is for', async () => {
    const bytes = (letter: string): string => letter.repeat(150_000)
    let connections = 0
    const answers: (() => void)[] = []
    const port = await listen((socket) => {
      const letter = String.fromCharCode(97 + (connections++ % 26))
      socket.once('data', () => {
        answers.push(() => socket.end(bytes(letter)))
        if (answers.length === 60) for (const answer of answers) answer()
      })
    })
    const many = Array.from({ length: 60 }, () => open(port))
    for (const one of many) one.react = (what) => what === 'connect' && one.send('go')
    await Promise.all(many.map((one) => one.heard(/eof/)))
    for (const one of many) expect(one.text === bytes(one.text[0]!)).toBe(true)
    expect(new Set(many.map((one) => one.text[0])).size).toBe(26)
  })

  test('a body that the other side is slow to take waits, and drains', async () => {
    const hash = createHash('sha256')
    let socket!: Socket
    const port = await listen((each) => {
      socket = each
      each.pause().on('data', (data) => hash.update(data))
    })
    const one = open(port)
    await one.heard(/connect/)
    const body = Buffer.alloc(3_000_001, 'body')
    const expected = createHash('sha256')
    let waits = 0
    for (let i = 0; i < 6; i++) {
      if (!one.wire.write(`before ${i}`, body, `after ${i}`)) waits++
      expected.update(`before ${i}`).update(body).update(`after ${i}`)
    }
    one.send('the last')
    expected.update('the last')
    expect(waits).toBeGreaterThan(0)
    expect(one.told).toEqual(['connect'])
    socket.resume()
    await one.heard(/drain/)
    // Its end is told by its length: the connection stays open.
    while (socket.bytesRead < 6 * (body.length + 15) + 8) await once(socket, 'data')
    expect(hash.digest('hex')).toBe(expected.digest('hex'))
  })

  test('what is written before a body and after it may be empty', async () => {
    const one = open(await listen(echo))
    await one.heard(/connect/)
    expect(one.wire.write('a', nothing, '')).toBe(true)
    one.wire.write('', Buffer.from('b'), '')
    one.wire.write('', nothing, 'c')
    one.react = () => one.text === 'abc' && one.told.push('all')
    await one.heard(/all/)
  })

  test('while it is paused, nothing of what comes in is told; then all of it, in order', async () => {
    let socket!: Socket
    const port = await listen((each) => {
      socket = each
    })
    for (const end of ['reset', 'end'] as const) {
      const one = open(port)
      one.react = (what) => what === 'bytes' && one.wire.pause()
      await one.heard(/connect/)
      // Bytes and the end of the connection are there together.
      socket.write('some')
      if (end === 'reset') reset(socket)
      else socket.end()
      await one.heard(/bytes/)
      const other = open(port)
      await other.heard(/connect/)
      expect(one.told).toEqual(['connect', 'bytes'])
      one.wire.resume()
      await one.heard(/eof|error/)
      expect([one.text, one.told.length]).toEqual(['some', 3])
    }
  })

  test('a reader that pauses holds the other side back, and loses nothing', async () => {
    const big = Buffer.alloc(8_000_000, '0123456789')
    const port = await listen((socket) => socket.end(big))
    const one = open(port)
    let length = 0
    one.react = (what) => {
      if (what !== 'bytes') return
      expect(big.latin1Slice(length, one.text.length) === one.text.slice(length)).toBe(true)
      length = one.text.length
      one.wire.pause()
      setImmediate(() => one.wire.resume())
    }
    await one.heard(/eof/)
    expect(length).toBe(big.length)
  })

  test('one that is closed hears no more, also where another one closes it', async () => {
    const sockets: Socket[] = []
    const port = await listen((socket) => sockets.push(socket))
    const many = Array.from({ length: 20 }, () => open(port))
    await Promise.all(many.map((one) => one.heard(/connect/)))
    await eventually('all of them at the other end', () => sockets.length, 20)
    const later: Recorder[] = []
    for (const one of many) {
      // The first to hear closes all the others, and opens as many.
      one.react = () => {
        for (const other of many) {
          other.react = () => {}
          if (other === one) continue
          other.close()
          later.push(open(port))
        }
      }
    }
    for (const socket of sockets) socket.write('x')
    await Promise.race(many.map((one) => one.heard(/bytes/)))
    await Promise.all(later.map((one) => one.heard(/connect/)))
    expect(many.filter((one) => one.text !== '')).toHaveLength(1)
    expect(later.filter((one) => one.text !== '')).toEqual([])
  })

  test('where one throws, the others are served', async () => {
    const listeners = process.listeners('uncaughtException')
    const caught: string[] = []
    process.removeAllListeners('uncaughtException').on('uncaughtException', (error) => caught.push(error.message))
    cleanup.push(() => {
      process.removeAllListeners('uncaughtException')
      for (const each of listeners) process.on('uncaughtException', each)
    })
    let asked = 0
    const port = await listen((socket) => socket.on('data', () => (asked++ < 10 ? socket.write('1') : socket.end('2'))))
    const many = Array.from({ length: 10 }, () => open(port))
    for (const one of many) one.react = (what) => what === 'connect' && one.send('x')
    await Promise.all(many.map((one) => one.heard(/bytes/)))
    // The second time, their answers come in one turn.
    for (const [i, one] of many.entries()) {
      one.react = (what) => {
        if (i % 3 === 0 && what === 'bytes') throw new Error('expected')
      }
      one.send('x')
    }
    await Promise.all(many.map((one) => one.heard(/eof/)))
    expect(caught).toEqual(Array(4).fill('expected'))
    expect(many.every((one) => one.text === '12')).toBe(true)
  })

  test('what begins with the text last remembered is marked so, where that is looked at', async () => {
    const one = open(await listen(echo))
    await one.heard(/connect/)
    const say = async (text: string): Promise<number> => {
      one.send(text)
      await one.heard(new RegExp(`(bytes ?){${one.marks.length + 1}}`))
      return one.marks.at(-1)!
    }
    const unmarked = await say('hello')
    const first = one.wire.remember('hello')
    const marks = [await say('hello'), await say('hello world'), await say('hell'), await say('Hello')]
    const second = one.wire.remember('world\xff')
    marks.push(await say('hello'), await say('world'), await say('world\xff'))
    const looked = first > 0
    expect([unmarked, ...marks]).toEqual(looked ? [0, first, first, 0, 0, 0, 0, second] : Array(8).fill(0))
    expect(first === second).toBe(!looked)
  })

  test.runIf(over === 'TCP')('refused: an error as Node has it', async () => {
    const one = open(await refusingPort())
    expect(one.told).toEqual([])
    await one.heard(/error/)
    expect(one.error).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect' })
    expect(one.error!.errno).toBeLessThan(0)
  })

  test.runIf(over === 'TCP')('a name is looked up, and one that nobody has is an error', async () => {
    const named = open(await listen(echo), 'localhost')
    await named.heard(/connect/)
    const unknown = open(1, 'nobody.invalid')
    await unknown.heard(/error/)
    expect(unknown.error).toMatchObject({
      syscall: 'getaddrinfo',
      code: expect.stringMatching(/^(ENOTFOUND|EAI_AGAIN)$/),
    })
  })

  test.runIf(over === 'TCP')('one closed before it is connected, or looked up, is told of no more', async () => {
    const port = await listen(echo)
    for (const host of ['127.0.0.1', 'localhost', 'nobody.invalid']) open(port, host).close()
    const last = open(port)
    await last.heard(/connect/)
  })

  test('written to after the other side has reset it: an error or the end, once', async () => {
    const port = await listen((socket) => socket.once('data', () => reset(socket)))
    const one = open(port)
    await one.heard(/connect/)
    const ended = one.heard(/eof|error/)
    one.wire.write('x', Buffer.alloc(4_000_000), '')
    await ended
    if (one.error !== null) expect(one.error.code).toMatch(/^(ECONNRESET|EPIPE)$/)
  })
})

describe.each(transports)('a Unix socket over $name', ({ transport }) => {
  const open = (path: string): Recorder => new Recorder(transport, path)

  test('that nobody listens on any more, that is not there, or in the way of which is a file: an error as Node has it', async () => {
    const stale = socketPath()
    // A process that ends without a word leaves the file.
    const { close } = await fillBacklog(stale)
    const opened = open(stale)
    close()
    await opened.heard(/error/)
    const file = `${temporaryFolder()}/file`
    writeFileSync(file, '')
    for (const [path, code] of [
      [stale, 'ECONNREFUSED'],
      [file, 'ECONNREFUSED'],
      [socketPath(), 'ENOENT'],
      [`${file}/socket`, 'ENOTDIR'],
    ] as const) {
      const one = open(path)
      expect(one.told).toEqual([])
      await one.heard(/error/)
      expect(one.error).toMatchObject({ code, syscall: 'connect' })
      expect(one.error!.errno).toBeLessThan(0)
    }
  })

  test.skipIf(process.getuid!() === 0)('that is not ours to connect to: EACCES', async () => {
    const path = (await listenOver('a Unix socket', echo)) as string
    chmodSync(path, 0)
    const one = open(path)
    await one.heard(/error/)
    expect(one.error).toMatchObject({ code: 'EACCES', syscall: 'connect' })
  })

  test('whose backlog is full is waited for, until there is room or the connection is closed', async () => {
    const path = socketPath()
    const backlog = await fillBacklog(path)
    cleanup.push(backlog.close)
    const many = Array.from({ length: 30 }, () => open(path))
    for (const one of many) one.react = (what) => what === 'connect' && one.send('x')
    for (const one of many.slice(20)) one.close()
    // Several tries of each.
    await pause(50)
    expect(many.flatMap((one) => one.told)).toEqual([])
    for (const one of many.slice(10, 20)) one.close()
    backlog.goOn()
    await Promise.all(many.slice(0, 10).map((one) => one.heard(/connect.* eof/)))
    expect(many.slice(10).flatMap((one) => one.told)).toEqual([])
  })

  test('of a path as long as they get', async () => {
    const folder = temporaryFolder()
    const path = `${folder}/${'s'.repeat(106 - folder.length)}`
    const server = createServer(echo).listen(path)
    await once(server, 'listening')
    cleanup.push(() => server.close())
    const one = open(path)
    one.react = (what) => what === 'connect' && one.send('x')
    await one.heard(/bytes/)
    one.close()
  })
})
