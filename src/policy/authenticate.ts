// Who is calling? Among the credential kinds that the route accepts, picks the one that decides, and asks its
// strategy. Asks the limits on guesses first; wrong credentials are charged to them. Runs per request.
import type { Route, RouteTable } from '../config/compile.js'
import type { CredentialKind } from '../config/credentials.js'
import type { Deadline, Deadlines } from '../exchange/deadlines.js'
import type { Exchange, Holder } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import { type Check, LATER, type Phase, type Resume } from '../exchange/phase.js'
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

/** Longer than any check takes, even one that fetches an issuer's keys. */
const CHECK_US = 30e6
const tooLate = new Rejection('overloaded', 'credentials not checked in time')

/** Holds an exchange while its credentials are checked, so that the client gets a response whatever happens. */
class CredentialsCheck implements Deadline, Holder {
  readonly deadlineUs: number
  slot = -1

  constructor(
    readonly exchange: Exchange,
    private readonly deadlines: Deadlines,
    nowUs: number,
    private readonly done: Resume,
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

/** What the phases offer to a check that takes time. */
export interface AuthenticatorContext {
  readonly deadlines: Deadlines
  nowUs(): number
  resume: Resume
}

export class Authenticator {
  /** By Route.index, in the order of the route's `auth`. */
  private readonly routes: readonly (readonly Strategy[])[]

  private readonly triedName: (name: string) => string

  constructor(
    table: RouteTable,
    pool: DigestPool,
    offloadBytes: number,
    private readonly context: AuthenticatorContext,
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

  /** Checks everything in the head. Null for a route that is open to anyone. */
  identify({ index, guessLimits }: Route): Check | null {
    const strategies = this.routes[index] as readonly Strategy[]
    const [strategy] = strategies
    if (strategy === undefined) return null
    if (strategies.length > 1 || guessLimits.length > 0) return (exchange) => this.choose(exchange, strategies)
    return (exchange) => this.judge(exchange, strategy.identify(exchange))
  }

  /** Whether the check of a request with a body needs the whole of it. Null: never. Called after identify. */
  needsBody({ index }: Route): ((exchange: Exchange) => boolean) | null {
    const strategies = this.routes[index] as readonly Strategy[]
    if (!strategies.some((strategy) => strategy.needsBody !== undefined)) return null
    return (exchange) => strategies[exchange.authAt]!.needsBody?.(exchange) ?? false
  }

  /** Checks what the head alone does not prove. Null for a route where the head proves everything. */
  verify({ index, guessLimits }: Route): Phase | null {
    const strategies = this.routes[index] as readonly Strategy[]
    const proves = strategies.some(({ verify, verifyLater }) => verify !== undefined || verifyLater !== undefined)
    if (!proves && (strategies.length === 0 || guessLimits.length === 0)) return null
    return (exchange) => {
      const strategy = strategies[exchange.authAt] as Strategy
      if (strategy.takesTime?.(exchange)) return this.verifyLater(exchange, strategy)
      return this.judge(exchange, strategy.verify?.(exchange) ?? null) ?? this.askAgain(exchange)
    }
  }

  /**
   * If the route accepts several kinds, the first in its list for which the request has credentials decides: wrong
   * credentials are refused even if others would pass, so that one request cannot try two secrets.
   */
  private choose(exchange: Exchange, strategies: readonly Strategy[]): Rejection | null {
    if (strategies.length > 1) {
      let at = 0
      while (at < strategies.length && !(strategies[at] as Strategy).presents(exchange)) at++
      if (at === strategies.length) return noCredentials
      exchange.authAt = at
    }
    const strategy = strategies[exchange.authAt] as Strategy
    const limited = exchange.route!.guessLimits.length === 0 ? null : this.askFirst(exchange, strategy)
    return limited ?? this.judge(exchange, strategy.identify(exchange))
  }

  /** Waits for a thread or the network. */
  private verifyLater(exchange: Exchange, strategy: Strategy): typeof LATER {
    const { deadlines, nowUs, resume } = this.context
    exchange.downstream.watch()
    const check = new CredentialsCheck(exchange, deadlines, nowUs(), resume)
    strategy.verifyLater!(exchange, (_, rejection) => {
      // A promise or a thread calls this, maybe for several exchanges in turn, and would not catch an exception.
      try {
        check.finish(this.judge(exchange, rejection) ?? this.askAgain(exchange))
      } catch (error) {
        exchange.crash(error)
      }
    })
    return LATER
  }

  /** Asked before any lookup: credentials count as a guess until they have been compared. */
  private askFirst(exchange: Exchange, strategy: Strategy): Rejection | null {
    // A request without credentials is asked for some; it guesses nothing.
    if (!strategy.presents(exchange)) return null
    exchange.claimed = strategy.claims?.(exchange) ?? ''
    const refused = this.guesses.ask(exchange)
    if (refused !== null) exchange.tried = this.triedName(exchange.claimed)
    return refused
  }

  /** Valid credentials that waited for their check are still refused if wrong ones have used up the limit meanwhile. */
  private askAgain(exchange: Exchange): Rejection | null {
    return exchange.downstream.watched ? this.guesses.ask(exchange) : null
  }

  /** Charges for wrong credentials. */
  private judge(exchange: Exchange, rejection: Rejection | null): Rejection | null {
    if (rejection === null || !rejection.isGuess) return rejection
    exchange.tried = this.triedName(exchange.claimed || (this.chosen(exchange)?.claims?.(exchange) ?? ''))
    return this.guesses.charge(exchange) ?? rejection
  }

  /** Undefined on open routes. */
  private chosen(exchange: Exchange): Strategy | undefined {
    return (this.routes[(exchange.route as Route).index] as readonly Strategy[])[exchange.authAt]
  }
}
