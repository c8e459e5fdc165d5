// What one attempt asks of its endpoint. Plain data, and its names are those of undici's dispatchers, so that an
// attempt passes it on as it is.
import type { Readable } from 'node:stream'
import type { FieldLines } from './field-lines.js'

export interface UpstreamRequest {
  readonly method: string
  /** Path and query, in origin-form. */
  readonly path: string
  readonly headers: FieldLines
  /** A body in memory may be sent again (retries.ts). A stream belongs to this attempt alone. */
  readonly body: Buffer | Readable | null
  /** A TLS connection is opened for this name, whatever Host says. */
  readonly servername: string
  /** undici would close the connection after a HEAD. */
  readonly reset: false
}
