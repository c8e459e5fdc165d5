// A phase is one step of an exchange's way from its route to the handler. worker/phases.ts lists the phases of a
// route in the order in which an exchange passes them.
import type { Exchange } from './exchange.js'
import type { Rejection } from './outcome.js'

/** A phase that decides at once: null lets the exchange pass. */
export type Check = (exchange: Exchange) => Rejection | null

/** The phase waits for something. It calls Resume later, or has called it already. */
export const LATER = Symbol('later')

/** A check, or a phase that may have to wait. Called once for an exchange. */
export type Phase = (exchange: Exchange) => Rejection | typeof LATER | null

/**
 * Ends a phase that returned LATER: the exchange goes on to the next phase, or is refused. Not for a concluded
 * exchange.
 */
export type Resume = (exchange: Exchange, rejection: Rejection | null) => void
