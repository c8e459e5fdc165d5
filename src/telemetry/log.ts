// The gateway's own log: starts, changes of state, faults. Never a line per request; that is access-log.ts.
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
   * `stderr`, or the path of a file to append to. Not stdout, so that a pipeline there sees only access lines, as with
   * Envoy and nginx.
   */
  readonly target?: string
  /** The descriptor of `stderr`, for tests. Default 2. */
  readonly fd?: number
}

export interface OwnLog {
  readonly log: Logger
  /**
   * From now on, lines go to the file that now has this name. Returns '', or the reason why they still go to the former
   * one.
   */
  reopen(): string
}

/**
 * Lines are rare and must be out before an exit, so each is written at once, synchronously. If the destination fails or
 * is full, it gets the lines together with the next one (beyond a mebibyte they are lost): a log must not stop or kill
 * the process it reports on.
 * @throws Error naming TIDEGATE_LOG if the file cannot be opened
 */
export function createLog({ level, worker, target = 'stderr', fd = 2 }: LogSettings): OwnLog {
  const path = target === 'stderr' ? null : target
  const destination = destinationOn(path === null ? fd : open(path))
  const log = pino(
    {
      level,
      base:
        worker === undefined ? { name: 'tidegate', pid: process.pid } : { name: 'tidegate', pid: process.pid, worker },
      // Nothing logs a consumer on purpose; this guards against a future mistake.
      redact: ['secret', 'secrets', 'password', 'apiKeys'].flatMap((key) => [key, `*.${key}`, `consumers[*].${key}`]),
    },
    // A wrapper, because pino ends a fatal line with the destination's flushSync, which retries for ever on any error
    // but EAGAIN.
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
      // Each write is complete when its call returns.
      closeSync(former)
      return ''
    },
  }
}

/** sonic-boom's types omit its descriptor, which it reads anew for each write. */
type Destination = sonic.SonicBoom & { fd: number }

function destinationOn(fd: number): Destination {
  // By itself, sonic-boom blocks the event loop for 100 ms and retries for ever when a non-blocking pipe is full.
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
