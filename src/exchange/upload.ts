// A request's streamed body, as handlers see it. downstream/upload.ts implements it.
import type { Readable } from 'node:stream'
import type { Rejection } from './outcome.js'

/** Told what becomes of an upload. */
export interface UploadEvents {
  /** More than the route or the worker's memory allows, too slow, or malformed: it has been dropped. */
  onRefused(rejection: Rejection): void
  /** A part of it has arrived, or the last part, or the client is no longer held back. */
  onProgress(): void
}

export interface Upload {
  /** The client is held back, so its silence is the gateway's doing. Never once the upload is complete or dropped. */
  readonly paused: boolean
  /** An upstream was given some of it, so another one can no longer have all of it. */
  readonly taken: boolean
  /** More of it is to come from the client. */
  readonly isComing: boolean
  /** All of it has arrived, or as much as is read ahead: nothing is left to wait for before the service is asked. */
  readonly isReadAhead: boolean
  /** An earlier refusal is told at once. Null ends listening. */
  listen(events: UploadEvents | null): void
  /** For one attempt, while none of it was taken. */
  open(): Buffer | Readable
  /** The rest is not needed (the service failed, responded early, or was never asked): it is read and thrown away. */
  drop(): void
  /** Drops it, and tells its listener why. */
  refuse(rejection: Rejection): void
  /** The exchange is over early: a body that is cut short must not look complete to the upstream. */
  cutShort(reason: Error): void
}
