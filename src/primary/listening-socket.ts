// The listening socket that every worker inherits: from the gateway that is taken over, from a service manager, or
// opened here. Threads have none, because each listens by itself. In the primary, which never accepts from it.
import { type AddressInfo, createServer } from 'node:net'
import { native } from '../../native/index.js'
import type { Settings } from '../config/settings.js'
import type { Isolation } from './isolation.js'
import { StartError } from './start-error.js'
import type { Former } from './takeover.js'

/** Connections the kernel queues while workers are busy or being replaced; capped by net.core.somaxconn. */
const BACKLOG = 4096
/** The first descriptor that a service manager passes on: sd_listen_fds(3). */
const FIRST_INHERITED_FD = 3
/** Longest wait for the workers of a killed primary, which normally release the socket within moments. */
const ORPHANS_LEAVE_MS = 3000
const RETRY_MS = 50

export interface ListeningSocket {
  /** Null if workers are threads. */
  readonly fd: number | null
  readonly port: number
  /** A service manager holds the socket too, for the next gateway it starts. */
  readonly isKept: boolean
  /** The gateway that is taken over holds the socket too. */
  readonly isFormers: boolean
}

/**
 * Resolves with an error if the port is in use, by another program or by workers of a killed gateway. The state tells
 * which, and then listenOnceOrphansLeave() can wait for them.
 * @throws StartError if waiting cannot help
 */
export async function openSocket(
  settings: Settings,
  isolation: Isolation,
  former: Former | null,
  listenFds: number,
): Promise<ListeningSocket | StartError> {
  if (former !== null) {
    return { fd: former.listenFd, port: former.port, isKept: former.socketIsKept, isFormers: true }
  }
  if (listenFds > 0) return inherit(listenFds, isolation)
  if (isolation.kind === 'thread') {
    try {
      return own(null, await probePort(settings.host, settings.port))
    } catch (error) {
      throw portProblem(error, settings)
    }
  }
  try {
    return listen(settings)
  } catch (error) {
    const problem = portProblem(error, settings)
    if (isTaken(error)) return problem
    throw problem
  }
}

/** @throws StartError if a process other than an orphan holds the port, or the orphans stay */
export async function listenOnceOrphansLeave(settings: Settings, hasOrphans: () => boolean): Promise<ListeningSocket> {
  for (const untilMs = performance.now() + ORPHANS_LEAVE_MS; ; ) {
    try {
      return listen(settings)
    } catch (error) {
      if (!isTaken(error) || performance.now() > untilMs || !hasOrphans()) throw portProblem(error, settings)
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
  }
}

/** Workers of a killed primary end by shutting the socket down for every process that holds it. */
export function openDoorAgain({ fd }: ListeningSocket): void {
  if (fd !== null) native!.adoptListener(fd)
}

/** The workers close their descriptors after they have accepted everything in the queue. */
export function closeSocket({ fd }: ListeningSocket): void {
  if (fd !== null) native!.closeFd(fd)
}

function own(fd: number | null, port: number): ListeningSocket {
  return { fd, port, isKept: false, isFormers: false }
}

function listen(settings: Settings): ListeningSocket {
  const { fd, port } = native!.listen(settings.host, settings.port, BACKLOG)
  return own(fd, port)
}

function inherit(count: number, isolation: Isolation): ListeningSocket {
  if (isolation.kind === 'thread')
    throw new StartError(`LISTEN_FDS: workers are threads, which open sockets of their own`)
  if (count > 1) throw new StartError(`LISTEN_FDS: ${count} sockets were passed on, and one is served`)
  try {
    return { ...native!.adoptListener(FIRST_INHERITED_FD), isKept: true, isFormers: false }
  } catch (error) {
    throw new StartError(`LISTEN_FDS: ${(error as Error).message}`)
  }
}

/**
 * Threads listen with SO_REUSEPORT, which would let a second gateway share the port unnoticed: so the port is checked
 * before.
 */
function probePort(host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer()
    probe.once('error', reject)
    probe.listen({ host, port, exclusive: true }, () => {
      const free = (probe.address() as AddressInfo).port
      probe.close(() => resolve(free))
    })
  })
}

function isTaken(error: unknown): boolean {
  return (error as NodeJS.ErrnoException).code === 'EADDRINUSE'
}

function portProblem(error: unknown, settings: Settings): StartError {
  const code = (error as NodeJS.ErrnoException).code
  const where = `${settings.host}:${settings.port}`
  if (code === 'EADDRINUSE') return new StartError(`TIDEGATE_PORT: ${where} is in use by another program`)
  if (code === 'EACCES')
    return new StartError(`TIDEGATE_PORT: not allowed to listen on ${where}; ports below 1024 need a privilege`)
  return new StartError(`TIDEGATE_HOST, TIDEGATE_PORT: cannot listen on ${where}: ${(error as Error).message}`)
}
