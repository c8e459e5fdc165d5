// The gateway's own lines: starts, changes of state, faults. Never one per request; that is access-log.ts.
import { closeSync } from 'node:fs'
import { type Logger, pino } from 'pino'
import sonic from 'sonic-boom'
import { openLogFile } from './sink.js'

export type { Logger } from 'pino'

export interface LogSettings {
  /** pino's names, or `silent`. */
  readonly level: string
  /** Slot of the worker that writes; absent in the primary. */
  readonly worker?: number
  /**
   * `stderr`, or the path of a file to append to. A pipeline behind stdout then sees access lines alone, as with Envoy and nginx.
   */
  readonly target?: string
  /** What `stderr` stands for, for tests. Default 2. */
  readonly fd?: number
}

export interface OwnLog {
  readonly log: Logger
  /** Lines from now on go to the file that has the target's name now. Returns '', or what keeps them in the former one. */
  reopen(): string
}

/**
 * Lines are rare and must be out before an exit, so each is written at once, synchronously. A destination that fails or is full keeps
 * the lines (up to a mebibyte, then they are lost) and gets them with the next one: a log must not stop or kill what it reports on.
 * @throws Error naming TIDEGATE_LOG where the file cannot be opened
 */
export function createLog({ level, worker, target = 'stderr', fd = 2 }: LogSettings): OwnLog {
  const path = target === 'stderr' ? null : target
  const destination = destinationOn(path === null ? fd : open(path))
  const log = pino(
    {
      level,
      base:
        worker === undefined ? { name: 'tidegate', pid: process.pid } : { name: 'tidegate', pid: process.pid, worker },
      // Nothing logs a consumer on purpose; this is for the day someone does.
      redact: ['secret', 'secrets', 'password', 'apiKeys'].flatMap((key) => [key, `*.${key}`, `consumers[*].${key}`]),
    },
    // Not the destination itself: pino ends a fatal line with its flushSync, which on any error but EAGAIN tries again for ever.
    { write: (line: string) => void destination.write(line) },
  )
  return {
    log,
    reopen() {
      if (path === null) return ''
      const former = destination.fd
      try {
        destination.fd = open(path)
      } catch (error) {
        return (error as Error).message
      }
      // Each write is over when its call returns.
      closeSync(former)
      return ''
    },
  }
}

/** sonic-boom's types leave out where it writes, which it reads anew for each write. */
type Destination = sonic.SonicBoom & { fd: number }

function destinationOn(fd: number): Destination {
  // Left to itself sonic-boom sleeps 100 ms in the event loop and tries again, for ever, when a non-blocking pipe is full.
  const destination = new sonic.SonicBoom({ fd, sync: true, maxLength: 1 << 20, retryEAGAIN: () => false })
  destination.on('error', () => {})
  return destination as Destination
}

function open(path: string): number {
  try {
    return openLogFile(path)
  } catch (error) {
    throw new Error(`TIDEGATE_LOG: cannot write to ${path}: ${(error as Error).message}`, { cause: error })
  }
}
