// What the primary and a worker say to each other, over the IPC channel of a forked process or the port of a thread.
// Everything that is counted goes through the segment instead.
import type { TlsMaterial } from '../config/certificates.js'
import type { TableSlots } from '../config/compile.js'
import type { EndpointConfig } from '../config/endpoint.js'
import type { Config } from '../config/schema.js'
import type { Settings } from '../config/settings.js'
import type { SegmentSpec } from '../state/sections.js'
import type { SegmentHandle } from '../state/segment.js'

/** A configuration that the primary has found sound, and where its routes and endpoints are in the shared tables. */
export interface Generation {
  /** Counts up with each reload. */
  readonly number: number
  /** The last change of endpoints that `config` and `slots` have in them (EndpointsMessage). */
  readonly change: number
  readonly config: Config
  readonly slots: TableSlots
}

export interface StartMessage {
  readonly type: 'start'
  readonly slot: number
  readonly owner: number
  readonly generation: Generation
  readonly settings: Settings
  readonly segment: SegmentHandle
  readonly spec: SegmentSpec
  /** The inherited listening socket's descriptor in the worker; null: the worker opens its own. */
  readonly listenFd: number | null
  /**
   * Somebody else accepts from the listening socket, or may: a service manager's next start, the gateway that is taken
   * over. Orphans leave its queue to them.
   */
  readonly isSocketShared: boolean
  readonly port: number
  /** Where access lines for stdout go. */
  readonly stdoutFd: number
  /** Null: the listener speaks cleartext. */
  readonly certificates: TlsMaterial | null
}

/** Connections from now on are served with these. */
export interface CertificatesMessage {
  readonly type: 'certificates'
  readonly certificates: TlsMaterial
}

/** Requests whose head comes from now on get this one. */
export interface ReloadMessage {
  readonly type: 'reload'
  readonly generation: Generation
}

/** From now on the service has these endpoints, in every generation. The worker confirms with `endpointsChanged`. */
export interface EndpointsMessage {
  readonly type: 'endpoints'
  /** Counts up with each of them. */
  readonly change: number
  readonly service: string
  /** As the configuration spells them, and their places in the endpoint table. */
  readonly endpoints: readonly EndpointConfig[]
  readonly slots: readonly number[]
  /** How many endpoints all services have together: the worker keeps descriptors for them. */
  readonly total: number
}

/** Logrotate has given the log files other names, say. Answered by `reopened` with this number. */
interface ReopenLogsMessage {
  readonly type: 'reopenLogs'
  readonly number: number
}

/** Finish what is under way and leave. */
export interface DrainMessage {
  readonly type: 'drain'
  /** Nobody else will take what is in the listening socket's queue. */
  readonly last: boolean
  /** How long connections on which nothing happens are waited for. */
  readonly idleMs: number
}

export type ToWorker =
  | StartMessage
  | ReloadMessage
  | EndpointsMessage
  | CertificatesMessage
  | ReopenLogsMessage
  | DrainMessage

export type FromWorker =
  | { readonly type: 'listening'; readonly port: number; readonly uwsVersion: string }
  /** It serves this generation, and has no requests of any before `oldest`. */
  | { readonly type: 'serves'; readonly generation: number; readonly oldest: number }
  /** It has applied this change and all before it: no request goes to an endpoint that is gone. */
  | { readonly type: 'endpointsChanged'; readonly change: number }
  /** It writes to the files that have the names of its log files now, or `problems` say why not. */
  | { readonly type: 'reopened'; readonly number: number; readonly problems: readonly string[] }
  /** It cannot start, or cannot go on; it is about to exit. */
  | { readonly type: 'failed'; readonly message: string }
