// What a phase is: one step of an exchange's way from its route to the handler. worker/phases.ts lists the phases of a route in the order
// in which an exchange passes them.
import type { Exchange } from './exchange.js'
import type { Rejection } from './outcome.js'

/** A phase that decides at once. Null lets the exchange pass. A route for which it has nothing to do gets null in its place. */
export type Check = (exchange: Exchange) => Rejection | null

/** Says that a phase waits for something, and will call Resume, or has called it already. */
export const LATER = Symbol('later')

/** A check, or a phase that may have to wait. Called once for an exchange. */
export type Phase = (exchange: Exchange) => Rejection | typeof LATER | null

/** Ends a phase that has returned LATER: the exchange goes on to the next one, or is refused. Not for an exchange that is concluded. */
export type Resume = (exchange: Exchange, rejection: Rejection | null) => void
