// What answers a request: the interface of handlers, and what the phases offer them. A handler is made once per route
// and generation. The registry of kinds is kinds.ts.

import type { MirrorDrop } from '../config/mirror.js'
import type { RetryEvent } from '../config/retries.js'
import type { Deadlines } from '../exchange/deadlines.js'
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'

export interface Handler {
  /** The handler reads the request's body: as a fallback it cannot answer if the first handler has taken some of it. */
  readonly needsBody: boolean
  /**
   * Called once, when every policy has let the exchange pass. Ends, now or later, in exactly one response followed by
   * context.conclude, or in context.fail. A handler that takes longer than this call first calls
   * exchange.downstream.watch(), sets exchange.holder, which is told when the client leaves, and puts a deadline on
   * the exchange.
   */
  handle(exchange: Exchange): void
}

/** What the phases of a generation offer its handlers. */
export interface HandlerContext {
  readonly deadlines: Deadlines
  /** Microseconds on the segment's clock. */
  nowUs(): number
  /** Nothing was sent yet: the route's fallback answers, or the client gets a problem. */
  fail(exchange: Exchange, rejection: Rejection): void
  /** The response is complete or cut, or the client is gone: the exchange is logged and counted. */
  conclude(exchange: Exchange): void
  /** Counts another attempt of the exchange, or one that there was no budget for. */
  retried(exchange: Exchange, event: RetryEvent): void
}

/** Counts what becomes of each branch of a route, by Branch.slot (state/branch-counts.ts). */
export interface BranchCounter {
  /** A split has given a request to this service. */
  picked(slot: number): void
  /** A mirror has sent a copy; ended() follows, once. */
  begun(slot: number): void
  /** @param failed no response, or one with a status of 500 or above */
  ended(slot: number, failed: boolean): void
  /** A mirror has not sent a copy that its share asked for. */
  dropped(slot: number, reason: MirrorDrop): void
}
