// A request's body on its way to whoever answers, as handlers see it. Implemented in downstream/upload.ts.
import type { Readable } from 'node:stream'
import type { Rejection } from './outcome.js'

/** Told what becomes of an upload. */
export interface UploadEvents {
  /** More than the route or the worker's memory allows, too slow, or malformed: it has been dropped. */
  onRefused(rejection: Rejection): void
  /** Some of it came from the client, or the last of it did, or the client is waited for again. */
  onProgress(): void
}

export interface Upload {
  /** The client is held back: its silence is the gateway's doing. Never once the upload is complete or dropped. */
  readonly paused: boolean
  /** An upstream was given some of it: another one could not have the whole any more. */
  readonly taken: boolean
  /** More of it is to come from the client. */
  readonly isComing: boolean
  /** Nothing is left to wait for before its service is asked: all of it is here, or as much as is read ahead. */
  readonly isReadAhead: boolean
  /** An earlier refusal is told at once. Null: nobody listens any more. */
  listen(events: UploadEvents | null): void
  /** For one attempt. Only while nothing was taken. */
  open(): Buffer | Readable
  /** Nobody wants the rest (the service failed, responded early, or was never asked): it is read and thrown away. */
  drop(): void
  /** Drops it, and tells its listener why. */
  refuse(rejection: Rejection): void
  /** The exchange is over early: a body that is cut short must not look complete to the upstream. */
  cutShort(reason: Error): void
}
