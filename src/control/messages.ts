// What the primary and a worker say to each other, over the IPC channel of a forked process or the port of a thread. Everything that is
// counted goes through the segment instead.
import type { TlsMaterial } from '../config/certificates.js'
import type { Config } from '../config/schema.js'
import type { Settings } from '../config/settings.js'
import type { SegmentHandle, SegmentSpec } from '../state/segment.js'

export interface StartMessage {
  readonly type: 'start'
  readonly slot: number
  readonly config: Config
  readonly settings: Settings
  readonly segment: SegmentHandle
  readonly spec: SegmentSpec
  /** The inherited listening socket's descriptor in the worker; null: the worker opens its own. */
  readonly listenFd: number | null
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

/** Finish what is under way and leave. */
export interface DrainMessage {
  readonly type: 'drain'
}

export type ToWorker = StartMessage | CertificatesMessage | DrainMessage

export type FromWorker =
  | { readonly type: 'listening'; readonly port: number; readonly uwsVersion: string }
  /** It cannot start, or cannot go on; it is about to exit. */
  | { readonly type: 'failed'; readonly message: string }
