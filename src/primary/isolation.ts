// Decides whether workers are processes or threads, and why. Runs in the primary, once, before anything is opened.
import { native, nativeProblem } from '../../native/index.js'
import type { Settings } from '../config/settings.js'
import { StartError } from './start-error.js'

export interface Isolation {
  readonly kind: 'process' | 'thread'
  /** The native addon is available; only it can map a file. */
  readonly keepsState: boolean
  /** The reason, for the log and /status. */
  readonly why: string
}

/** @throws StartError if the requested isolation is not available */
export function chooseIsolation(settings: Settings): Isolation {
  const isolation = isolationOf(settings)
  // Features of the native acceptor that uWS's own listener lacks.
  if (isolation.kind === 'thread' && settings.proxyProtocol === 'on') {
    throw new StartError(
      `TIDEGATE_PROXY_PROTOCOL: "on" needs workers that are processes; they are threads here: ${isolation.why}`,
    )
  }
  return isolation
}

function isolationOf(settings: Settings): Isolation {
  if (settings.isolation === 'thread')
    return { kind: 'thread', keepsState: native !== null, why: 'TIDEGATE_ISOLATION=thread' }
  if (native !== null) {
    return {
      kind: 'process',
      keepsState: true,
      why: settings.isolation === 'process' ? 'TIDEGATE_ISOLATION=process' : 'native addon loaded',
    }
  }
  if (settings.isolation === 'process') throw new StartError(`TIDEGATE_ISOLATION=process: ${nativeProblem}`)
  return { kind: 'thread', keepsState: false, why: nativeProblem }
}
