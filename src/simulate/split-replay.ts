// Which service of a split gets a logged request. The gateway's own code decides by the key of a sticky split, where
// the log has that, and draws otherwise. A draw says how many requests each service gets; which ones they are is
// chance. So a service is given those that it had in the log, as far as its share reaches: what failed then fails now.
import type { Route, Service, SplitRules } from '../config/compile.js'
import { Split, Spread } from '../config/split.js'
import type { Exchange } from '../exchange/exchange.js'
import { requestKeyReader } from '../exchange/request-key.js'

/** A service may be so many requests ahead of its share, for the sake of the log's draws. */
const MOST_AHEAD = 16

export class SplitReplay {
  private readonly sides: SplitRules['sides']
  private readonly split: Split
  private readonly spread = new Spread(0)
  private readonly keyOf: ((exchange: Exchange) => string) | null
  /** Draws of each side that no request was given to. */
  private readonly due: number[]

  constructor({ sides, sticky }: SplitRules, { name }: Route) {
    this.sides = sides
    this.split = new Split(name, sides)
    this.keyOf = sticky === null ? null : requestKeyReader(sticky)
    this.due = sides.map(() => 0)
  }

  /** @param logged the service that had it; '' where none had */
  serviceFor(exchange: Exchange, logged: string): Service {
    const key = this.keyOf === null ? '' : this.keyOf(exchange)
    return this.sides[key === '' ? this.draw(logged) : this.split.of(key)]!.service
  }

  private draw(logged: string): number {
    const { due, sides } = this
    const drawn = this.split.at(this.spread.next())
    due[drawn]!++
    const then = sides.findIndex(({ service, weight }) => service.name === logged && weight > 0)
    const at = then >= 0 && due[then]! > -MOST_AHEAD ? then : due.indexOf(Math.max(...due))
    due[at]!--
    return at
  }
}
