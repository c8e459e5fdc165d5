// The two upstream clients, set up as client.ts sets them up; the lean one over each of its transports.
import type { Dispatcher } from 'undici'
import { native } from '../../native/index.js'
import { transport } from '../../src/upstream/http1/choose-transport.js'
import { NodeTransport } from '../../src/upstream/http1/node-transport.js'
import { LeanPool } from '../../src/upstream/http1/pool.js'
import type { Transport } from '../../src/upstream/http1/transport.js'
import { createConnector, createPool } from '../../src/upstream/undici.js'

export interface ClientOptions {
  readonly connections?: number
  readonly pipelining?: number
  readonly connectTimeoutMs?: number
  /** The lean client's; undici's is left at its default. */
  readonly keepAliveMs?: number
}

export interface UpstreamClient {
  readonly name: 'undici' | 'lean' | 'lean over node:net'
  create(origin: string, options?: ClientOptions): Dispatcher
}

export const undici: UpstreamClient = {
  name: 'undici',
  create: (origin, { connections = 16, connectTimeoutMs = 2000 } = {}) =>
    createPool(origin, {
      connections,
      pipelining: 1,
      allowH2: false,
      headersTimeout: 0,
      bodyTimeout: 0,
      connect: createConnector({ timeout: connectTimeoutMs }),
    }),
}

const overNode = new NodeTransport()

/** Those there are here, as test.each wants them. */
export const transports: readonly { name: string; transport: Transport }[] = [
  ...(native === null ? [] : [{ name: 'the wire', transport }]),
  { name: 'node:net', transport: overNode },
]

const leanOver = (name: UpstreamClient['name'], transport: Transport): UpstreamClient => ({
  name,
  create: (origin, { connections = 16, pipelining = 1, connectTimeoutMs = 2000, keepAliveMs = 4000 } = {}) =>
    new LeanPool(origin, { connections, pipelining, connectTimeoutMs, keepAliveMs, transport }),
})

export const lean = leanOver('lean', transport)
export const leans = native === null ? [lean] : [lean, leanOver('lean over node:net', overNode)]

export const clients = [undici, ...leans]
