// The two upstream clients, set up as forward.ts sets them up.
import { type Dispatcher, Pool } from 'undici'
import { LeanPool } from '../../src/proxy/lean/pool.js'

export interface ClientOptions {
  readonly connections?: number
  readonly pipelining?: number
  readonly connectTimeoutMs?: number
  /** The lean client's; undici's is left at its default. */
  readonly keepAliveMs?: number
}

export interface UpstreamClient {
  readonly name: 'undici' | 'lean'
  create(origin: string, options?: ClientOptions): Dispatcher
}

export const undici: UpstreamClient = {
  name: 'undici',
  create: (origin, { connections = 16, connectTimeoutMs = 2000 } = {}) =>
    new Pool(origin, {
      connections,
      pipelining: 1,
      allowH2: false,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: { timeout: connectTimeoutMs },
    }),
}

export const lean: UpstreamClient = {
  name: 'lean',
  create: (origin, { connections = 16, pipelining = 1, connectTimeoutMs = 2000, keepAliveMs = 4000 } = {}) =>
    new LeanPool(origin, { connections, pipelining, connectTimeoutMs, keepAliveMs }),
}

export const clients = [undici, lean]
