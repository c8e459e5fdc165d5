// The gateway's own lines: starts, changes of state, faults. Never one per request; that is access-log.ts.
import { type Logger, pino } from 'pino'
import sonic from 'sonic-boom'

export type { Logger } from 'pino'

export interface LogSettings {
  /** pino's names, or `silent`. */
  readonly level: string
  /** Slot of the worker that writes; absent in the primary. */
  readonly worker?: number
  /**
   * Descriptor to write to. Default 2: a pipeline behind stdout then sees access lines alone, as with Envoy and nginx.
   */
  readonly fd?: number
}

/**
 * Lines are rare and must be out before an exit, so each is written at once, synchronously. A destination that fails or is full keeps
 * the lines (up to a mebibyte, then they are lost) and gets them with the next one: a log must not stop or kill what it reports on.
 */
export function createLog({ level, worker, fd = 2 }: LogSettings): Logger {
  // Left to itself sonic-boom sleeps 100 ms in the event loop and tries again, for ever, when a non-blocking pipe is full.
  const destination = new sonic.SonicBoom({ fd, sync: true, maxLength: 1 << 20, retryEAGAIN: () => false })
  destination.on('error', () => {})
  return pino(
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
}
