// What every client does while the backlog of a Unix socket is full. Over TCP the kernel waits for room by itself: it
// drops the SYN, and sends it again later. Over a Unix socket it refuses with EAGAIN at once, so the client has to
// try again.
import type { buildConnector } from 'undici'
import { errors } from './undici.js'

/** The code of that error. */
export const BACKLOG_FULL = 'EAGAIN'

const FIRST_PAUSE_MS = 1
const MAX_PAUSE_MS = 64

/** How long to wait before the next attempt; `attempts` were refused so far, at least one. */
export function backlogPauseMs(attempts: number): number {
  return Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** (attempts - 1))
}

/** Tries again while the backlog is full. Where it still is after `timeoutMs`, that is a connect timeout. */
export function retryWhileFull(connect: buildConnector.connector, timeoutMs: number): buildConnector.connector {
  return (options, callback) => {
    const untilMs = performance.now() + timeoutMs
    let attempts = 0
    const attempt = (): void =>
      connect(options, (...result) => {
        const code = (result[0] as NodeJS.ErrnoException | null)?.code
        if (code !== BACKLOG_FULL) return callback(...result)
        const leftMs = untilMs - performance.now()
        if (leftMs <= 0) return callback(new errors.ConnectTimeoutError(), null)
        setTimeout(attempt, Math.min(leftMs, backlogPauseMs(++attempts)))
      })
    attempt()
  }
}
