// The only place that loads undici, in the parts that are needed: its index brings fetch, WebSocket and caches along, 60 ms of a worker's
// start and 17 MiB of its memory.
import { createRequire } from 'node:module'
import type * as Undici from 'undici'

const require = createRequire(import.meta.url)

export const errors = require('undici/lib/core/errors.js') as typeof Undici.errors
export const Dispatcher = require('undici/lib/dispatcher/dispatcher.js') as typeof Undici.Dispatcher

type Connector = ReturnType<typeof Undici.buildConnector>

/** What undici's pools use of their own accord, for one that is to be told more. */
export function createConnector(options: Undici.buildConnector.BuildOptions): Connector {
  return (require('undici/lib/core/connect.js') as typeof Undici.buildConnector)(options)
}

/** Loaded with the first one: where all services are spoken to by the lean client it never is. */
export function createPool(origin: string, options: Undici.Pool.Options): Undici.Pool {
  const Pool = require('undici/lib/dispatcher/pool.js') as typeof Undici.Pool
  return new Pool(origin, options)
}
