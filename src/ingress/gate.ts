// The native gate before uWS' parser, which is too lenient for a wall (native/src/gate.cc says where): opened once per worker, told of each
// body. Without the addon, or where uWS gives it no place, there is none; chunked requests then end their connection, so that whatever
// was misread of a body is nobody's next request.
import type { TemplatedApp } from 'uWebSockets.js'
import { type Gate, native } from '../../native/index.js'
import { refuseBody } from './body.js'
import type { Exchange } from './exchange.js'

let gate: Gate | null = null

/** Not 0 while the end of an answer is written whose connection ends with it: the addon has both leave in one packet. */
export const isLastWrite = new Uint8Array(1)

/** Before there are connections, and in a process of its own: where it does not work, nothing changes. */
export function spareSyscalls(): void {
  native?.spareSyscalls(isLastWrite)
}

/** Why there is no gate, or ''. */
export function openGate(): string {
  if (gate !== null) return ''
  if (native === null) return 'the native addon is not there'
  try {
    gate = native.openGate((exchange) => refuseBody(exchange as Exchange))
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

export function guard(app: TemplatedApp, tls: boolean, relayed: boolean): void {
  gate?.guard(app.getDescriptor(), tls, relayed)
}

/** From within the request's handler, before uWS reads on. */
export function expectBody(exchange: Exchange): void {
  const guarded = gate?.expectBody(exchange.contentLength, exchange) ?? false
  if (!guarded && exchange.contentLength < 0) exchange.closeRequested = true
}
