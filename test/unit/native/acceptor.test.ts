import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { connect, Socket } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Acceptor, type Native, native, nativeProblem } from '../../../native/index.js'
import { eventually } from '../../support/waiting.js'

const addon = join(import.meta.dirname, '../../../native/build/Release/tidegate.node')
const child = join(import.meta.dirname, '../../native/child.mjs')

describe.skipIf(native === null)(`the acceptor${nativeProblem && ` (skipped: ${nativeProblem})`}`, () => {
  const { listen, accept, openSegment, closeFd } = native ?? ({} as Native)
  let children: ChildProcess[]
  let sockets: Socket[]
  let acceptors: Acceptor[]

  beforeEach(() => {
    children = []
    sockets = []
    acceptors = []
  })
  afterEach(() => {
    for (const each of acceptors) each.close(0)
    for (const each of sockets) each.destroy()
    for (const each of children) each.kill('SIGKILL')
  })

  const openDescriptors = () => readdirSync('/proc/self/fd').length
  const ignore = () => {}
  /** A connection with its first bytes sent, which is what has it accepted. */
  const dial = (port: number) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('x'))
    sockets.push(socket)
    return socket
  }
  /** Settles when the connection is gone, reset or not: the other end may close with bytes unread. */
  const gone = (socket: Socket) =>
    new Promise<void>((resolve) => socket.on('error', ignore).on('close', () => resolve()))
  const echoed = async (port: number) => {
    const socket = dial(port)
    await once(socket, 'data')
    return socket
  }
  const start = async (command: string, args: string[], fds: number[]) => {
    const process = spawn(command, args, { stdio: ['ignore', 'inherit', 'inherit', ...fds, 'ipc'] })
    children.push(process)
    expect(await once(process, 'message')).toContain('accepting')
    return process
  }
  const startWorker = (index: number, workers: number, fds: number[]) =>
    start(process.execPath, [child, addon, 'accept', String(workers), String(index)], fds)

  it('hands over a connected descriptor', async () => {
    const { fd, port } = listen('127.0.0.1', 0, 16)
    const accepted = new Promise<number>((resolve) => {
      acceptors.push(
        accept({ fd, counts: new Int32Array(1), self: 0, onConnection: resolve, door: null, onError: ignore }),
      )
    })
    const client = dial(port)
    const server = new Socket({ fd: await accepted })
    sockets.push(server)
    expect(String((await once(server, 'data'))[0])).toBe('x')
    expect(server.remotePort).toBe(client.localPort)
  })

  it('listens on either family, on both, and on a free port', async () => {
    for (const [host, target] of [
      ['127.0.0.1', '127.0.0.1'],
      ['0.0.0.0', '127.0.0.1'],
      ['::1', '::1'],
      ['::', '127.0.0.1'],
      ['', '127.0.0.1'],
    ] as const) {
      const { fd, port } = listen(host, 0, 16)
      const socket = connect(port, target)
      await once(socket, 'connect')
      socket.destroy()
      closeFd(fd)
    }
  })

  it('says why it cannot listen, and leaks nothing', () => {
    const { fd, port } = listen('127.0.0.1', 0, 16)
    const before = openDescriptors()
    for (let i = 0; i < 1000; i++) {
      expect(() => listen('127.0.0.1', port, 16)).toThrow(
        expect.objectContaining({ code: 'EADDRINUSE', syscall: expect.any(String) }),
      )
    }
    expect(() => listen('192.0.2.1', 0, 16)).toThrow(
      expect.objectContaining({ code: 'EADDRNOTAVAIL', syscall: 'bind' }),
    )
    expect(openDescriptors()).toBe(before)
    closeFd(fd)
  })

  it('names the argument that is wrong, and leaves the descriptor to the caller', () => {
    const { fd } = listen('127.0.0.1', 0, 16)
    const good = { fd, counts: new Int32Array(2), self: 0, onConnection: ignore, door: null, onError: ignore }
    const wrong = (change: object) => () => accept({ ...good, ...change })
    const before = openDescriptors()
    expect(wrong({ fd: 'x' })).toThrow(/^fd must be an integer/)
    expect(wrong({ fd: 1_000_000 })).toThrow(expect.objectContaining({ code: 'EBADF' }))
    expect(wrong({ counts: [0] })).toThrow(/^counts must be an Int32Array/)
    expect(wrong({ counts: new Uint32Array(1) })).toThrow(/^counts must be an Int32Array/)
    expect(wrong({ counts: new Int32Array(0) })).toThrow(/^counts must be an Int32Array/)
    expect(wrong({ self: 2 })).toThrow(/^self must be an integer from 0 to 1$/)
    expect(wrong({ onConnection: null })).toThrow(/^onConnection must be a function$/)
    expect(wrong({ onError: undefined })).toThrow(/^onError must be a function$/)
    expect(() => listen('localhost', 0, 16)).toThrow(/^host must be an IPv4 or IPv6 address$/)
    expect(() => listen('127.0.0.1', 65536, 16)).toThrow(/^port must be an integer from 0 to 65535$/)
    expect(() => listen('127.0.0.1', 0, 0)).toThrow(/^backlog must be an integer/)
    expect(openDescriptors()).toBe(before)
    closeFd(fd)
  })

  it('closes its descriptors, also from within the callback and twice', async () => {
    const before = openDescriptors()
    const { fd, port } = listen('127.0.0.1', 0, 16)
    let acceptor: Acceptor
    const accepted = new Promise<number>((resolve) => {
      const onConnection = (connection: number) => {
        acceptor.close(0)
        acceptor.close(0)
        resolve(connection)
      }
      acceptor = accept({ fd, counts: new Int32Array(1), self: 0, onConnection, door: null, onError: ignore })
    })
    const client = dial(port)
    closeFd(await accepted)
    await gone(client)
    expect(openDescriptors()).toBe(before)
  })

  it('turns what a callback throws into an uncaughtException, ends that connection and goes on', async () => {
    const { fd, port } = listen('127.0.0.1', 0, 16)
    const caught: unknown[] = []
    const others = process.listeners('uncaughtException')
    process.removeAllListeners('uncaughtException').on('uncaughtException', (error) => caught.push(error))
    try {
      const before = openDescriptors()
      let calls = 0
      const third = new Promise<void>((resolve) => {
        const onConnection = (connection: number) => {
          if (++calls === 1) throw new Error('before the descriptor is passed on')
          sockets.push(new Socket({ fd: connection, readable: true }).resume())
          if (calls === 2) throw new Error('after it is polled by somebody else')
          resolve()
        }
        acceptors.push(accept({ fd, counts: new Int32Array(1), self: 0, onConnection, door: null, onError: ignore }))
      })
      const inUse = openDescriptors()
      expect(inUse).toBe(before + 1) // the acceptor's epoll set
      await gone(dial(port))
      expect(openDescriptors()).toBe(inUse)
      dial(port)
      dial(port)
      await third
      expect(caught).toEqual([
        new Error('before the descriptor is passed on'),
        new Error('after it is polled by somebody else'),
      ])
      expect(openDescriptors()).toBe(inUse + 4) // both ends of two connections: the second one was left alone
    } finally {
      process.removeAllListeners('uncaughtException')
      for (const each of others) process.on('uncaughtException', each)
    }
  })

  it('outlives running out of descriptors, with every connection served in the end', async () => {
    const { fd, port } = listen('127.0.0.1', 0, 128)
    const segment = openSegment(null, 4096)
    const limited = ['-c', 'ulimit -n 64 && exec "$0" "$@"', process.execPath, child, addon, 'accept', '1', '0']
    const worker = await start('sh', limited, [fd, segment.fd])
    const clients = Array.from({ length: 100 }, () => dial(port))
    let served = 0
    const all = new Promise<void>((resolve, reject) => {
      for (const client of clients) {
        client.on('error', reject)
        client.once('data', () => {
          if (++served === clients.length) resolve()
        })
      }
    })
    expect(await once(worker, 'message')).toContain('EMFILE')
    expect(served).toBeLessThan(64)
    for (const client of clients) client.once('data', () => client.end())
    for (const client of clients) if (client.bytesRead > 0) client.end()
    await all
    for (const each of [fd, segment.fd]) closeFd(each)
  })

  it.each([
    [30, 0],
    [0, 30],
  ])('leaves connections to the less loaded of two workers (%i and %i open)', async (first, second) => {
    const { fd, port } = listen('127.0.0.1', 0, 128)
    const segment = openSegment(null, 4096)
    const counts = new Int32Array(segment.buffer, 0, 2)
    await start(process.execPath, [child, addon, 'accept', '2', '0@3', '1@5'], [fd, segment.fd, fd])
    counts.set([first, second])
    for (let i = 0; i < 30; i++) await echoed(port)
    // Up to the slack of a sixteenth. Left to chance, or to the order of wakes, one of the two would be far ahead.
    expect(counts[0]! + counts[1]!).toBe(60)
    expect(Math.abs(counts[0]! - counts[1]!)).toBeLessThanOrEqual(8)
    for (const each of [fd, segment.fd]) closeFd(each)
  })

  it('serves while the least loaded worker hangs', async () => {
    const { fd, port } = listen('127.0.0.1', 0, 128)
    const segment = openSegment(null, 4096)
    const counts = new Int32Array(segment.buffer, 0, 3).fill(-1) // the third never starts
    const first = await startWorker(0, 3, [fd, segment.fd])
    await startWorker(1, 3, [fd, segment.fd])
    first.kill('SIGSTOP')
    for (let i = 0; i < 40; i++) await echoed(port)
    expect([...counts]).toEqual([0, 40, -1])
    for (const each of [fd, segment.fd]) closeFd(each)
  })

  it('loses no queued connection when the worker that might take it is killed', async () => {
    const { fd, port } = listen('127.0.0.1', 0, 128)
    const segment = openSegment(null, 4096)
    new Int32Array(segment.buffer, 0, 2).fill(-1)
    const first = await startWorker(0, 2, [fd, segment.fd])
    first.kill('SIGSTOP')
    const waiting = Array.from({ length: 20 }, () => echoed(port)) // nobody else is there yet
    first.kill('SIGKILL')
    await once(first, 'exit')
    await startWorker(1, 2, [fd, segment.fd])
    expect(await Promise.all(waiting)).toHaveLength(20)
    for (const each of [fd, segment.fd]) closeFd(each)
  })

  it('tells of an exception in a callback, and ends that connection alone', async () => {
    const { fd, port } = listen('127.0.0.1', 0, 16)
    const told: unknown[] = []
    let calls = 0
    const onConnection = (connection: number) => {
      if (calls++ === 0) throw new Error('expected')
      const socket = new Socket({ fd: connection, readable: true, writable: true })
      sockets.push(socket)
      socket.end('served')
      return undefined
    }
    const door = {
      ...{ headTimeoutMs: 5000, tallies: new Float64Array(5), isTrusted: () => false, proxyProtocol: false },
      ...{ maxConnections: 0, maxPerAddress: 0, places: new Int32Array(0), addressSeed: 0, tls: false, room: 1000 },
      ...{ highestFd: 1 << 20, relays: false, onException: (error: unknown) => told.push(error) },
    }
    acceptors.push(accept({ fd, counts: new Int32Array(1), self: 0, onConnection, door, onError: ignore }))
    const get = async () => {
      const socket = connect(port, '127.0.0.1', () => socket.write('GET / HTTP/1.1\r\n\r\n'))
      sockets.push(socket)
      let text = ''
      socket.on('data', (data) => {
        text += data
      })
      await gone(socket)
      return text
    }
    expect([await get(), await get()]).toEqual(['', 'served'])
    expect(told).toEqual([new Error('expected')])
  })

  it('lets in who has begun, and answers no one else, once new ones are refused', async () => {
    const { fd, port } = listen('127.0.0.1', 0, 128)
    const accepted: number[] = []
    const acceptor = accept({
      fd,
      counts: new Int32Array(1),
      self: 0,
      onConnection: (connection) => void accepted.push(connection),
      door: null,
      onError: ignore,
    })
    // Shaken hands, and nothing said yet: in nobody's queue, and reset by a socket that closes.
    const silent = connect(port, '127.0.0.1')
    sockets.push(silent)
    await once(silent, 'connect')
    acceptor.refuseNew()
    const late = connect(port, '127.0.0.1')
    sockets.push(late)
    const refused = once(late, 'error')
    await new Promise<void>((resolve) => silent.write('x', () => resolve()))
    const taken = (): number => {
      acceptor.takeAll()
      return accepted.length
    }
    await eventually('the connection in the queue', taken, 1)
    acceptor.close(0)
    acceptor.takeAll()
    acceptor.refuseNew()
    // A second later, when it tries again and there is no socket any more.
    expect(((await refused)[0] as NodeJS.ErrnoException).code).toBe('ECONNREFUSED')
    const server = new Socket({ fd: accepted[0] as number })
    sockets.push(server)
    expect(String((await once(server, 'data'))[0])).toBe('x')
  })
})
