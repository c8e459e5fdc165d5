// Who is calling? Picks, of the kinds of credentials that the route allows, the one that decides, and asks its strategy; before it the limits on
// guesses, which wrong credentials are charged to. Runs per request.
import type { Route, RouteTable } from '../config/compile.js'
import type { CredentialKind } from '../config/credentials.js'
import type { Deadline, Deadlines } from '../exchange/deadlines.js'
import type { Exchange, Holder } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import { KnownByApiKey } from './api-key.js'
import { KnownByPassword } from './basic.js'
import { createTriedName } from './claimed-name.js'
import { KnownByCertificate } from './client-certificate.js'
import type { DigestPool } from './digest-pool.js'
import { SignedMessage } from './http-signature.js'
import { KnownByToken } from './jwt.js'
import type { KeysListener } from './jwt-keys.js'
import type { GuessLimit } from './rate-limit.js'
import type { Strategy } from './strategy.js'
import { SignedByXm } from './x-m.js'

const noCredentials = new Rejection('unauthorized', 'no credentials')

type Done = (exchange: Exchange, rejection: Rejection | null) => void

/** Above what any check takes by itself, the fetching of an issuer's keys included. */
const CHECK_US = 30e6
const tooLate = new Rejection('overloaded', 'credentials not checked in time')

/** A request whose credentials are being checked: however that goes, its client is answered. */
class Check implements Deadline, Holder {
  readonly deadlineUs: number
  slot = -1

  constructor(
    readonly exchange: Exchange,
    private readonly deadlines: Deadlines,
    nowUs: number,
    private readonly done: Done,
  ) {
    this.deadlineUs = nowUs + CHECK_US
    deadlines.add(this)
    exchange.holder = this
  }

  abandon(): void {
    this.deadlines.remove(this)
  }

  expire(): void {
    this.finish(tooLate)
  }

  finish(rejection: Rejection | null): void {
    this.deadlines.remove(this)
    this.exchange.holder = null
    this.done(this.exchange, rejection)
  }
}

export class Authenticator {
  /** By Route.index, in the order of the route's `auth`. */
  private readonly routes: readonly (readonly Strategy[])[]

  private readonly triedName: (name: string) => string

  constructor(
    table: RouteTable,
    pool: DigestPool,
    offloadBytes: number,
    private readonly deadlines: Deadlines,
    private readonly guesses: GuessLimit,
    onKeys: KeysListener,
  ) {
    this.triedName = createTriedName(table)
    const strategies: Record<CredentialKind, Strategy> = {
      'x-m': new SignedByXm(table, pool, offloadBytes),
      'http-signature': new SignedMessage(table, pool, offloadBytes),
      'api-key': new KnownByApiKey(table),
      basic: new KnownByPassword(table, (exchange) => guesses.ask(exchange)),
      jwt: new KnownByToken(table, onKeys),
      'client-certificate': new KnownByCertificate(table),
    }
    this.routes = table.routes.map(({ auth }) => auth.map((kind) => strategies[kind]))
  }

  /**
   * Everything that the head tells. Where several kinds are allowed, the first in the route's list that the request has credentials for
   * decides: one that is wrong is refused even if another would pass, so that nobody tries two secrets with one request.
   */
  identify(exchange: Exchange): Rejection | null {
    const route = exchange.route as Route
    const strategies = this.routes[route.index] as readonly Strategy[]
    if (strategies.length === 0) return null
    if (strategies.length > 1) {
      let at = 0
      while (at < strategies.length && !(strategies[at] as Strategy).presents(exchange)) at++
      if (at === strategies.length) return noCredentials
      exchange.authAt = at
    }
    const strategy = strategies[exchange.authAt] as Strategy
    const limited = route.guessLimits.length === 0 ? null : this.askFirst(exchange, strategy)
    return limited ?? this.judge(exchange, strategy.identify(exchange))
  }

  /** Whether the whole body must be here before the check. */
  needsBody(exchange: Exchange): boolean {
    return this.chosen(exchange)?.needsBody?.(exchange) ?? false
  }

  /** Whether the check cannot be done in this turn of the event loop: verifyLater() then, not verify(). */
  takesTime(exchange: Exchange): boolean {
    return this.chosen(exchange)?.takesTime?.(exchange) ?? false
  }

  verify(exchange: Exchange): Rejection | null {
    return this.judge(exchange, this.chosen(exchange)?.verify?.(exchange) ?? null) ?? this.askAgain(exchange)
  }

  verifyLater(exchange: Exchange, nowUs: number, done: Done): void {
    const check = new Check(exchange, this.deadlines, nowUs, done)
    this.chosen(exchange)!.verifyLater!(exchange, (_, rejection) => {
      // Called by a promise or a thread's answer, which may be that of several exchanges: nobody there catches.
      try {
        check.finish(this.judge(exchange, rejection) ?? this.askAgain(exchange))
      } catch (error) {
        exchange.crash(error)
      }
    })
  }

  /** Before anything is looked up: also credentials that were right before are a guess until they are compared. */
  private askFirst(exchange: Exchange, strategy: Strategy): Rejection | null {
    // Who has none is asked for some, and guesses nothing.
    if (!strategy.presents(exchange)) return null
    exchange.claimed = strategy.claims?.(exchange) ?? ''
    const refused = this.guesses.ask(exchange)
    if (refused !== null) exchange.tried = this.triedName(exchange.claimed)
    return refused
  }

  /** Credentials that waited for their check and are right: not told where wrong ones have used up the limit meanwhile. */
  private askAgain(exchange: Exchange): Rejection | null {
    return exchange.watched ? this.guesses.ask(exchange) : null
  }

  /** Charges for wrong credentials. */
  private judge(exchange: Exchange, rejection: Rejection | null): Rejection | null {
    if (rejection === null || !rejection.isGuess) return rejection
    exchange.tried = this.triedName(exchange.claimed || (this.chosen(exchange)?.claims?.(exchange) ?? ''))
    return this.guesses.charge(exchange) ?? rejection
  }

  /** Undefined on routes that are open to anyone. */
  private chosen(exchange: Exchange): Strategy | undefined {
    return (this.routes[(exchange.route as Route).index] as readonly Strategy[])[exchange.authAt]
  }
}
