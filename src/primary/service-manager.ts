// What a service manager (systemd) is told of this gateway: sd_notify(3), as lines in a datagram. Where there is none, nothing happens. In the
// primary; what it says to us is read with the rest of the environment.
import { native } from '../../native/index.js'
import type { ServiceEnvironment } from '../config/load.js'
import type { Logger } from '../telemetry/log.js'

export interface ServiceManager {
  ready(): void
  /** Followed by ready(), whatever came of it. */
  reloading(): void
  stopping(): void
}

export function serviceManager({ notifySocket, watchdogMs }: ServiceEnvironment, log: Logger): ServiceManager {
  let troubled = false

  function tell(...lines: string[]): void {
    if (notifySocket === '' || native === null) return
    try {
      native.sendDatagram(notifySocket, lines.join('\n'))
    } catch (error) {
      if (!troubled) log.warn({ err: error }, 'the service manager cannot be told')
      troubled = true
    }
  }

  let beats = false
  return {
    ready() {
      tell('READY=1')
      // That the primary's loop turns; its workers it watches itself.
      if (watchdogMs > 0 && !beats) setInterval(() => tell('WATCHDOG=1'), watchdogMs / 2).unref()
      beats = true
    },
    reloading: () => tell('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => tell('STOPPING=1'),
  }
}
