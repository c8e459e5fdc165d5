// What every way of knowing a caller has in common: authenticate.ts picks one for a request and asks it in the order of the methods below.
// The optional ones are for credentials that the head alone does not prove. One object per worker, made at start; each is a file in this folder.
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'

export interface Strategy {
  /** The request carries credentials of this kind, good or bad. Asked only where a route allows several kinds. */
  presents(exchange: Exchange): boolean

  /** Whose the credentials say they are, unproven; '' where they name nobody. Absent: they never do. Throws for no input. */
  claims?(exchange: Exchange): string

  /**
   * All that the head tells, before a byte of the body is read. Missing credentials are refused here. May set exchange.consumer, which
   * counts for nothing until the check is over.
   */
  identify(exchange: Exchange): Rejection | null

  /** Whether exchange.body must be here before the check. Asked after identify, as are the rest. Absent: never. */
  needsBody?(exchange: Exchange): boolean

  /** Whether the check is left to verifyLater, because it waits for a thread or for the network. Absent: never. */
  takesTime?(exchange: Exchange): boolean

  /** In this turn of the event loop. With null, exchange.consumer says who is calling. Absent: identify has told all. */
  verify?(exchange: Exchange): Rejection | null

  /**
   * The same, later, where takesTime says so; `done` is not called for an exchange that is concluded (the client left). It may be called
   * at once.
   */
  verifyLater?(exchange: Exchange, done: (exchange: Exchange, rejection: Rejection | null) => void): void
}

/** A header's value; '' where it is missing or empty, null where it comes twice: what reads the request next may go by the other one. */
export function soleHeader(exchange: Exchange, name: string): string | null {
  return exchange.fields.sole(name)
}
