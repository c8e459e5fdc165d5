// The native gate before uWS' parser, which is too lenient for a wall (native/src/uws/gate.cc says where): opened once
// per worker, asked for each head, told of each body, and of each answer that is complete, since uWS cuts off who asks
// before that. There is none without the addon, or where its proof fails (patches.ts): accept.ts then refuses chunked
// requests, so that whatever was misread of a body is nobody's next request.
import type { TemplatedApp } from 'uWebSockets.js'
import { type Gate, native } from '../../../native/index.js'
import type { Settings } from '../../config/settings.js'
import type { Deadlines } from '../../exchange/deadlines.js'
import { NUMBERED } from '../../exchange/fields.js'
import { OUTCOMES, type OutcomeCode } from '../../exchange/outcome.js'

let gate: Gate | null = null

/** Told where the gate finds the body that it was to expect malformed. */
export interface GuardedBody {
  onBadBody(): void
}

/**
 * Not 0 while the end of an answer is written whose connection ends with it: the addon has both leave in one packet.
 */
export const isLastWrite = new Uint8Array(1)

// What a connection's word says (native/index.ts).
const IDLE = 0
const HELD = 2
const ENDS = 3
let states: Int32Array = new Int32Array(1)

/** What the gate answers by itself, in its order. No request has begun by then, so there is no id to tell. */
const REFUSALS = [
  'bad_request',
  'request_timeout',
  'uri_too_long',
  'headers_too_large',
  'not_implemented',
  'version_not_supported',
  'overloaded',
] as const

function refusalOf(code: OutcomeCode): string {
  const { status, title } = OUTCOMES[code]
  const body = `{"type":"about:blank","title":"${title}","status":${status},"code":"${code}"}`
  const fields = `Content-Type: application/problem+json\r\nContent-Length: ${body.length}\r\nConnection: close\r\n`
  return `HTTP/1.1 ${status} ${title}\r\n${fields}\r\n${body}`
}

/** Once in each thread. Why there is no gate, or ''. */
export function openGate(
  tallies: Float64Array,
  {
    headerTimeoutMs: headTimeoutMs,
    idleTimeoutMs,
    maxHeaderBytes,
  }: Pick<Settings, 'headerTimeoutMs' | 'idleTimeoutMs' | 'maxHeaderBytes'>,
): string {
  if (gate !== null) return ''
  if (native === null) return 'the native addon is not there'
  try {
    const onBadBody = (body: unknown): void => (body as GuardedBody).onBadBody()
    const refusals = REFUSALS.map(refusalOf)
    const limits = { headTimeoutMs, idleTimeoutMs, maxHeaderBytes }
    gate = native.openGate({ onBadBody, names: NUMBERED, tallies, ...limits, refusals })
    states = gate.states
    return ''
  } catch (error) {
    return (error as Error).message
  }
}

/** For the proofs alone. */
export function openedGate(): Gate {
  return gate!
}

/** Apps are not guarded from now on, and requests are read as uWS has them. */
export function giveUpGate(): void {
  gate?.takeFirstBytes(false)
  gate = null
  states = new Int32Array(1)
}

const LOOK_MS = 1000

/**
 * Ends connections on which nothing would ever happen again (gate_watch.cc), and tells how many: any is a fault of the
 * gateway. `deadlines` knows of all requests that are waited for. Stop it by clearing the timer.
 */
export function watchConnections(deadlines: Deadlines, onEnded: (connections: number) => void): NodeJS.Timeout {
  const owned = new Uint8Array(states.length)
  const look = (): void => {
    if (gate === null) return
    deadlines.mark(owned, 1)
    const ended = gate.endStuck(owned)
    deadlines.mark(owned, 0)
    if (ended > 0) onEnded(ended)
  }
  return setInterval(look, LOOK_MS).unref()
}

export function isGated(): boolean {
  return gate !== null
}

export function guard(app: TemplatedApp, tls: boolean, relayed: boolean): void {
  gate?.guard(app.getDescriptor(), tls, relayed)
}

/**
 * From within the request's handler, before uWS reads on. `length`: -1 where the body is chunked. False: no gate reads
 * it.
 */
export function expectBody(length: number, body: GuardedBody): boolean {
  return gate?.expectBody(length, body) ?? false
}

/** Sends 100 Continue. Only for a connection that the gate knows. */
export function continueRequest(connection: number): void {
  gate!.continueRequest(connection)
}

/**
 * From within the request's handler: its head, null without a gate. Where the parts of the last one are is in
 * headMarks().
 */
export function readHead(): string | null {
  return gate === null ? null : gate.readHead()
}

export function headMarks(): Int32Array {
  return gate!.marks
}

/** From within the request's handler: its connection, as the gate knows it; 0 or less where it does not. */
export function takeConnection(): number {
  const connection = states[0] as number
  states[0] = IDLE
  return connection
}

/** Exactly once for each answer, when the last of it is given to uWS. `ends`: uWS closes the connection behind it. */
export function answered(connection: number, ends: boolean): void {
  if (connection <= 0) return
  const more = states[connection] === HELD
  states[connection] = ends ? ENDS : IDLE
  if (more && !ends) gate!.resume(connection)
}

/**
 * The same of a connection's last answer, where uWS could not be told that it is: the gate closes the connection once
 * that is out.
 */
export function answeredLast(connection: number): void {
  if (connection <= 0) return
  states[connection] = ENDS
  gate!.resume(connection)
}
