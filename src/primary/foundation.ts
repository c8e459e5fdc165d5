// Opens what the gateway stands on: processes or threads, the gateway to take over, the listening socket, the segment.
// In an order in which a failing start says why and has changed nothing.
import { compile } from '../config/compile.js'
import { type Loaded, serviceEnvironment } from '../config/load.js'
import type { Settings } from '../config/settings.js'
import { createLog, type Logger, type OwnLog } from '../telemetry/log.js'
import { chooseIsolation, type Isolation } from './isolation.js'
import { type ListeningSocket, listenOnceOrphansLeave, openSocket } from './listening-socket.js'
import { type ServiceManager, serviceManager } from './service-manager.js'
import { SharedState } from './shared-state.js'
import { StartError } from './start-error.js'
import { type Former, takeOver } from './takeover.js'

export interface Foundation {
  readonly loaded: Loaded
  readonly isolation: Isolation
  readonly log: Logger
  /** Reopens the log file. Returns '', or why the former one stays in use. */
  readonly reopenLog: () => string
  readonly service: ServiceManager
  /** Null if no gateway is taken over. */
  readonly former: Former | null
  readonly socket: ListeningSocket
  readonly state: SharedState
}

/** @throws StartError */
export async function layFoundation(loaded: Loaded, takesOver: boolean): Promise<Foundation> {
  const { config, settings } = loaded
  const table = compile(config, settings)
  const isolation = chooseIsolation(settings)
  const { log, reopen: reopenLog } = openLog(settings)
  const former = takesOver ? takeOver(settings, isolation) : null
  const environment = serviceEnvironment()
  const service = serviceManager(environment, log)

  const openState = (): SharedState => new SharedState(table, settings, isolation, former?.segmentFd)
  const opened = await openSocket(settings, isolation, former, environment.listenFds)
  const state = opened instanceof StartError ? openOr(opened, openState) : openState()
  const socket =
    opened instanceof StartError ? await listenOnceOrphansLeave(settings, () => state.hasOrphans()) : opened
  log.info(
    {
      workers: settings.workers,
      isolation: isolation.kind,
      why: isolation.why,
      state: state.segment.notice,
      node: process.versions.node,
      ...(former === null ? {} : { takesOverFrom: former.pid }),
      ...(state.orphanCount > 0 ? { orphans: state.orphanCount } : {}),
    },
    'starting',
  )
  return { loaded, isolation, log, reopenLog, service, former, socket, state }
}

function openLog(settings: Settings): OwnLog {
  try {
    return createLog({ level: settings.logLevel, target: settings.log })
  } catch (error) {
    throw new StartError((error as Error).message)
  }
}

/** If another gateway has both port and state, the error names the port. */
function openOr(portTaken: StartError, openState: () => SharedState): SharedState {
  try {
    return openState()
  } catch {
    throw portTaken
  }
}
