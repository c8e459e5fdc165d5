// Whether workers are processes or threads, and why. Decided by the primary, once, before anything is opened.
import { native, nativeProblem } from '../../native/index.js'
import type { Settings } from '../config/settings.js'
import { StartError } from './start-error.js'

export interface Isolation {
  readonly kind: 'process' | 'thread'
  /** The native addon is there, which alone can map a file. */
  readonly keepsState: boolean
  /** Why, for the log and /status. */
  readonly why: string
}

/** @throws StartError where what is asked for is not to be had */
export function chooseIsolation(settings: Settings): Isolation {
  const isolation = isolationOf(settings)
  // What the native acceptor does, and uWS's own listener does not.
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
