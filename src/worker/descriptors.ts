// How many descriptors a process may have, what a worker may need of them, and how many that leaves for client connections: those are refused before
// a connection to an upstream, a log file or a certificate is. Off the request's way.
import { readdirSync, readFileSync } from 'node:fs'
import type { Settings } from '../config/settings.js'
import type { Logger } from '../telemetry/log.js'

export interface DescriptorPlan {
  /** Of the process. */
  readonly limit: number
  /** What the settings may need at most, where each thing they allow is there at once. */
  readonly needed: number
  /** Client connections that a worker takes. */
  readonly room: number
  /** Connections to upstreams that it has descriptors for at the same time. */
  readonly upstreams: number
  /** A client connection whose descriptor is this one or a higher one takes what the worker keeps for itself. */
  readonly highestFd: number
}

type DescriptorSettings = Pick<Settings, 'workers' | 'maxConnections' | 'upstreamConnections' | 'hmacThreads'>

/** A worker has about this many as soon as it listens: memory, pipes, epoll sets, the socket. */
const OPEN_AT_START = 32
/** For log files, certificates, names that are looked up, HTTP/1.0. */
const SPARE = 32
/** Of a thread that checks signatures. */
const THREAD = 8
/** A fault that lasts is told of this often. */
const TELL_AGAIN_MS = 10_000

/**
 * The limit of this process, which Node raises from the soft to the hard one as it starts. Without /proc: infinite.
 */
export function descriptorLimit(): number {
  try {
    const line = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'latin1'))
    return line === null ? Number.POSITIVE_INFINITY : Number(line[1])
  } catch {
    return Number.POSITIVE_INFINITY
  }
}

/** Those that are open in this process now. */
export function openDescriptors(): number {
  try {
    return readdirSync('/proc/self/fd').length
  } catch {
    return OPEN_AT_START
  }
}

/**
 * @param sharers workers that have the limit together: all of them where they are threads, else 1
 * @param open what is open before there is any connection; not given: an estimate
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
  // A client needs one upstream at most: half is enough, however many the settings allow.
  const upstreams = Math.min(mayOpen, Math.floor((free - spare) / 2))
  const room = Math.min(2 ** 31 - 1, Math.max(1, free - spare - upstreams))
  const highestFd = Math.min(2 ** 31 - 1, limit - sharers * Math.ceil(spare / 2))
  return { limit, needed, room, upstreams, highestFd }
}

/** Says so where the settings may need more than there are: then connections are refused before the settings' own limits are reached. */
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

/** What a worker says of connections that it could not take: when it begins, and every ten seconds as long as it goes on. */
export class Refusals {
  private readonly log: Logger
  private readonly limit: number
  private told: number
  private toldMs = Number.NEGATIVE_INFINITY
  private code = ''

  /** @param refused so far: by whoever had this worker's place before */
  constructor(log: Logger, limit: number, refused: number) {
    this.log = log
    this.told = refused
    this.limit = limit
  }

  /** The system's error; the acceptor tries again by itself. */
  acceptFailed(code: string): void {
    this.code = code
  }

  /** @param refused so far, for want of descriptors */
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
