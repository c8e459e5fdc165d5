// Notifies a service manager (systemd) about this gateway: sd_notify(3), lines in a datagram. Does nothing without one.
// In the primary. What it passes to the gateway is read with the rest of the environment.
import { native } from '../../native/index.js'
import type { ServiceEnvironment } from '../config/load.js'
import type { Logger } from '../telemetry/log.js'

export interface ServiceManager {
  ready(): void
  /** ready() follows, whatever the result. */
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
      // Proves that the primary's loop turns; the primary watches its workers itself.
      if (watchdogMs > 0 && !beats) setInterval(() => tell('WATCHDOG=1'), watchdogMs / 2).unref()
      beats = true
    },
    reloading: () => tell('RELOADING=1', `MONOTONIC_USEC=${process.hrtime.bigint() / 1000n}`),
    stopping: () => tell('STOPPING=1'),
  }
}
