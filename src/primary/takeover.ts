// Takeover, from one gateway to the next without a pause: both ends of the conversation in which `tidegate start
// --takeover` gets the listening socket and the segment from the running gateway. In the primaries; sees no request.
//
//   new                                    old, on STATE.sock, which only its own user can reach
//    │ ◄── hello, with both descriptors ────│
//    │  maps, starts its workers: from now on both accept from the one queue
//    │ ─── admin ─────────────────────────► │  closes its admin listener
//    │ ◄── admin ───────────────────────────│
//    │  opens it
//    │ ─── ready ─────────────────────────► │  drains: what it still has it finishes, and ends with 0
//    │ ◄── leaving ─────────────────────────│
//
// If the connection ends before `ready`, the old gateway goes on as before. If the old gateway dies before `ready`, the
// new one goes on alone.
import { lstatSync, unlinkSync } from 'node:fs'
import { createServer, Socket } from 'node:net'
import { createInterface } from 'node:readline'
import { native } from '../../native/index.js'
import type { Settings } from '../config/settings.js'
import type { Logger } from '../telemetry/log.js'
import type { Isolation } from './isolation.js'
import { StartError } from './start-error.js'

const PROTOCOL = 1
/**
 * Silence after which the other side counts as dead. Generous, because the new gateway starts its workers meanwhile.
 */
const PATIENCE_MS = 60_000

interface Hello {
  readonly protocol: number
  readonly pid: number
  readonly host: string
  readonly port: number
  /** A service manager holds the socket too. */
  readonly socketIsKept: boolean
}

/** The takeover socket of the gateway with this state. */
export function takeoverPath(state: string): string {
  return `${state}.sock`
}

export interface OfferOptions {
  readonly path: string
  readonly host: string
  readonly port: number
  readonly socketIsKept: boolean
  readonly listenFd: number
  readonly segmentFd: number
  readonly log: Logger
  /** The successor needs the admin port. Null if this gateway is already leaving. */
  readonly releaseAdmin: () => Promise<void> | null
  /** The successor failed before it was ready. */
  readonly restoreAdmin: () => void
  /** The successor serves: this gateway finishes its requests and leaves. */
  readonly leave: () => void
}

export interface Offer {
  /** Whether a successor is about to take over. */
  readonly isTaken: boolean
  /**
   * Sends away a successor that is not ready: it would share a socket that is about to be shut down for every holder.
   */
  close(): void
}

/** The last word. A connection that ends without it ends because its process died. */
function refuse(successor: Socket): void {
  successor.end('no\n', () => successor.destroy())
}

/** If the socket cannot be made, the log says so, and the gateway runs without takeover. */
export function offerTakeover(options: OfferOptions): Offer {
  const { path, host, port, socketIsKept, listenFd, segmentFd, log } = options
  let successor: Socket | null = null
  let left = false
  const server = createServer((socket) => {
    socket.on('error', () => {})
    if (successor !== null) return void socket.destroy()
    successor = socket
    let adminIsOurs = true
    const hello: Hello = { protocol: PROTOCOL, pid: process.pid, host, port, socketIsKept }
    try {
      // Node offers no other way to detect this.
      const { fd } = (socket as unknown as { _handle: { fd: number } })._handle
      native!.sendDescriptors(fd, [listenFd, segmentFd], `${JSON.stringify(hello)}\n`)
    } catch (error) {
      log.error({ err: error }, 'takeover refused')
      socket.destroy()
    }
    log.warn('another gateway is about to take over')
    socket.setTimeout(PATIENCE_MS, () => refuse(socket))
    const lines = createInterface(socket).on('error', () => {})
    lines.on('line', async (line) => {
      if (line === 'admin' && adminIsOurs) {
        const released = options.releaseAdmin()
        if (released === null) return refuse(socket)
        adminIsOurs = false
        await released
        socket.write('admin\n')
      }
      if (line === 'ready' && !left && !socket.destroyed) {
        left = true
        // Closing removes the socket's name, which must happen before the successor makes its own.
        server.close()
        socket.end('leaving\n')
        options.leave()
      }
    })
    socket.on('close', () => {
      if (left) return
      successor = null
      log.error('the other gateway did not take over')
      if (!adminIsOurs) options.restoreAdmin()
    })
  })
  server.on('error', (error) => log.warn({ err: error }, 'this gateway cannot be taken over'))
  try {
    // Since this gateway holds the state's lock, a socket here is left over from a killed gateway. Anything else is a
    // foreign file.
    if (lstatSync(path).isSocket()) unlinkSync(path)
  } catch {
    // Usually none exists. listen() reports one that belongs to another user.
  }
  // Private from the first moment on: the socket is bound before listen() returns.
  const umask = process.umask(0o177)
  server.listen(path)
  process.umask(umask)
  return {
    get isTaken() {
      return successor !== null
    },
    close() {
      server.close()
      if (!left && successor !== null) refuse(successor)
    },
  }
}

/** The old gateway, while it waits for this one. */
export interface Former {
  readonly listenFd: number
  readonly segmentFd: number
  readonly port: number
  readonly pid: number
  readonly socketIsKept: boolean
  /** Resolves when the admin port is free. */
  takeAdmin(): Promise<void>
  /** Resolves when it has begun to leave. */
  ready(): Promise<void>
  /** Tells the old gateway to go on serving. */
  giveUp(): void
}

/** @throws StartError that says why no gateway can be taken over */
export function takeOver(settings: Settings, isolation: Isolation): Former {
  if (isolation.kind === 'thread')
    throw new StartError('--takeover: workers are threads, which have no socket to hand over')
  if (settings.state === 'none')
    throw new StartError('--takeover: TIDEGATE_STATE=none keeps nothing that could be found')
  try {
    return meet(settings.state, settings.host, settings.port)
  } catch (error) {
    throw new StartError(`--takeover: ${(error as Error).message}`)
  }
}

function meet(state: string, host: string, port: number): Former {
  if (native === null) throw new Error('a takeover needs the native addon')
  const path = takeoverPath(state)
  let received: ReturnType<typeof native.receiveDescriptors>
  try {
    received = native.receiveDescriptors(path)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    const nobody = code === 'ENOENT' || code === 'ECONNREFUSED'
    throw new Error(nobody ? `no gateway runs that has the state in ${state}` : message, { cause: error })
  }
  const [listenFd, segmentFd] = received.descriptors as [number, number]
  const hello = JSON.parse(received.text) as Hello
  const socket = new Socket({ fd: received.fd, readable: true, writable: true })
  socket.on('error', () => {})
  // The reader passes the socket's errors on; 'close' handles them.
  const lines = createInterface(socket).on('error', () => {})
  if (hello.protocol !== PROTOCOL) {
    socket.destroy()
    throw new Error(
      `the gateway that runs hands over by protocol ${hello.protocol}, this is ${PROTOCOL}: restart instead`,
    )
  }
  if (hello.host !== host || (port !== 0 && port !== hello.port)) {
    socket.destroy()
    throw new Error(`the gateway that runs listens on ${hello.host}:${hello.port}, and not on ${host}:${port}`)
  }

  let refused = false
  lines.on('line', (line) => {
    if (line === 'no') refused = true
  })

  /** A dead gateway holds nothing any more. */
  function ask(word: string, answer: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const gone = (): void => {
        if (refused) reject(new Error('the gateway that was to be taken over has let go'))
        else resolve()
      }
      if (socket.closed) return gone()
      socket.once('close', gone)
      lines.on('line', (line) => {
        if (line === answer) resolve()
      })
      socket.write(`${word}\n`)
    })
  }
  return {
    listenFd,
    segmentFd,
    port: hello.port,
    pid: hello.pid,
    socketIsKept: hello.socketIsKept,
    takeAdmin: () => ask('admin', 'admin'),
    ready: () => ask('ready', 'leaving'),
    giveUp: () => void socket.destroy(),
  }
}
