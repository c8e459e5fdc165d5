// The interface of a credential kind: authenticate.ts picks one for a request and calls its methods in the order below.
// The optional methods are for credentials that the head alone does not prove. One object per worker, made at start;
// each kind has a file here.
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'

export interface Strategy {
  /**
   * Whether the request carries credentials of this kind, valid or not. Called only if a route accepts several kinds.
   */
  presents(exchange: Exchange): boolean

  /** The name that the credentials claim, unproven; '' if they claim none. Absent if they never do. Never throws. */
  claims?(exchange: Exchange): string

  /**
   * Checks the head, before the body is read. Refuses missing credentials. May set exchange.consumer, which
   * does not count until the check is over.
   */
  identify(exchange: Exchange): Rejection | null

  /**
   * Whether the check needs exchange.body. Called after identify, like the rest, for requests with a body. Absent:
   * never.
   */
  needsBody?(exchange: Exchange): boolean

  /** Whether verifyLater must do the check, because it waits for a thread or the network. Absent: never. */
  takesTime?(exchange: Exchange): boolean

  /**
   * Checks in this turn of the event loop. Null: exchange.consumer is the caller. Absent: identify has checked
   * everything.
   */
  verify?(exchange: Exchange): Rejection | null

  /**
   * The same, later, if takesTime says so. Does not call `done` for a concluded exchange (the client left). May call it
   * at once.
   */
  verifyLater?(exchange: Exchange, done: (exchange: Exchange, rejection: Rejection | null) => void): void
}

/** A header's value; '' if it is missing or empty, null if it occurs twice: the service might use the other one. */
export function soleHeader(exchange: Exchange, name: string): string | null {
  return exchange.fields.sole(name)
}
