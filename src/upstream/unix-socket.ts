// What every client does about a Unix socket whose backlog is full. Over TCP the kernel waits for room: it drops the SYN, and it is sent again. Over a
// Unix socket the kernel refuses with EAGAIN at once, so the client has to wait by itself.
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

/** Tries again while the backlog is full; `timeoutMs` after the first attempt that is a connect timeout. */
export function patient(connect: buildConnector.connector, timeoutMs: number): buildConnector.connector {
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
