// Plans a process's descriptors: how many a worker may need, and how many are left for client connections. Clients are
// refused before upstream connections, log files or certificates lack descriptors. Off the request's way.
import { readdirSync, readFileSync } from 'node:fs'
import type { Settings } from '../config/settings.js'
import type { Logger } from '../telemetry/log.js'

export interface DescriptorPlan {
  /** The limit of the process. */
  readonly limit: number
  /** The most that the settings can need, if everything they allow exists at once. */
  readonly needed: number
  /** Client connections that a worker accepts. */
  readonly room: number
  /** Upstream connections for which it has descriptors at the same time. */
  readonly upstreams: number
  /** A client connection with this descriptor or a higher one would use the worker's reserve. */
  readonly highestFd: number
}

type DescriptorSettings = Pick<Settings, 'workers' | 'maxConnections' | 'upstreamConnections' | 'hmacThreads'>

/** A worker has about this many as soon as it listens: memory, pipes, epoll sets, the socket. */
const OPEN_AT_START = 32
/** Reserve for log files, certificates, DNS and HTTP/1.0. */
const SPARE = 32
/** Descriptors of a thread that checks signatures. */
const THREAD = 8
/** Interval at which a lasting fault is logged. */
const TELL_AGAIN_MS = 10_000

/**
 * The descriptor limit of this process. Node raises the soft limit to the hard one when it starts. Infinite without
 * /proc.
 */
export function descriptorLimit(): number {
  try {
    const line = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
    return line === null ? Number.POSITIVE_INFINITY : Number(line[1])
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

/** The number of descriptors open in this process now. */
export function openDescriptors(): number {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    return OPEN_AT_START
  }
}

/**
 * @param sharers workers that share the limit: all of them if they are threads, else 1
 * @param open descriptors that are open before any connection; an estimate if omitted
 */
export function planDescriptors(
  limit: number,
  settings: DescriptorSettings,
  endpoints: number,
  sharers: number,
  open = OPEN_AT_START * sharers,
): DescriptorPlan {
  const { workers, maxConnections, upstreamConnections, hmacThreads } = settings
  const mayOpen = upstreamConnections * endpoints
  const own = SPARE + THREAD * hmacThreads
  const needed = open + sharers * (own + mayOpen + Math.ceil(maxConnections / workers))
  const free = Math.max(0, Math.floor((limit - open) / sharers))
  const spare = Math.min(own, Math.floor(free / 4))
  // A client needs at most one upstream connection, so half is enough, whatever the settings allow.
  const upstreams = Math.min(mayOpen, Math.floor((free - spare) / 2))
  const room = Math.min(2 ** 31 - 1, Math.max(1, free - spare - upstreams))
  const highestFd = Math.min(2 ** 31 - 1, limit - sharers * Math.ceil(spare / 2))
  return { limit, needed, room, upstreams, highestFd }
}

/**
 * Warns if the settings may need more descriptors than the limit: connections are then refused before the settings' own
 * limits.
 */
export function checkDescriptors(log: Logger, settings: DescriptorSettings, endpoints: number, threads: boolean): void {
  const { workers, maxConnections, upstreamConnections } = settings
  const plan = planDescriptors(descriptorLimit(), settings, endpoints, threads ? workers : 1)
  const { limit, needed, room, upstreams } = plan
  if (limit >= needed) return
  log.warn(
    { limit, needed, connectionsPerWorker: room, upstreamConnectionsPerWorker: upstreams, workers, endpoints },
    `${threads ? 'the process' : 'each worker'} may have ${limit} descriptors (ulimit -n), and its share of TIDEGATE_MAX_CONNECTIONS (${maxConnections}) and ` +
      `TIDEGATE_UPSTREAM_CONNECTIONS (${upstreamConnections}) for each endpoint may need ${needed}: raise the one or lower the others`,
  )
}

/** Logs connections that a worker could not accept: when it begins, and every ten seconds while it lasts. */
export class Refusals {
  private readonly log: Logger
  private readonly limit: number
  private told: number
  private toldMs = Number.NEGATIVE_INFINITY
  private code = ''

  /** @param refused the count so far, by earlier workers in this slot */
  constructor(log: Logger, limit: number, refused: number) {
    this.log = log
    this.told = refused
    this.limit = limit
  }

  /** Reports the system's error; the acceptor tries again by itself. */
  acceptFailed(code: string): void {
    this.code = code
  }

  /** @param refused the count so far, for lack of descriptors */
  tell(refused: number): void {
    const now = performance.now()
    if ((refused === this.told && this.code === '') || now - this.toldMs < TELL_AGAIN_MS) return
    const { code, limit } = this
    if (code !== '') this.log.error({ code, limit }, 'cannot accept connections for the moment')
    else
      this.log.error(
        { refused: refused - this.told, limit },
        'too few descriptors (ulimit -n): client connections refused',
      )
    this.told = refused
    this.toldMs = now
    this.code = ''
  }
}
