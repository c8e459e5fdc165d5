// The split handler: each request goes to the proxy of one of several services. config/split.ts says to which. Runs per
// request; it holds no exchange.
import type { Branch, Route, SplitRules } from '../config/compile.js'
import { Split, Spread } from '../config/split.js'
import type { Exchange } from '../exchange/exchange.js'
import { requestKeyReader } from '../exchange/request-key.js'
import type { BranchCounter, Handler } from './handler.js'
import type { Proxies } from './proxy/proxy.js'

export class SplitHandler implements Handler {
  readonly needsBody = true
  private readonly split: Split
  private readonly spread = new Spread(Math.random())
  private readonly keyOf: ((exchange: Exchange) => string) | null
  /** This and the next by side. */
  private readonly handlers: readonly Handler[]
  private readonly slots: readonly number[]
  private readonly counter: BranchCounter

  constructor(
    { sides, sticky }: SplitRules,
    route: Route,
    branches: readonly Branch[],
    proxies: Proxies,
    counter: BranchCounter,
  ) {
    const { name } = route
    this.split = new Split(name, sides)
    this.keyOf = sticky === null ? null : requestKeyReader(sticky)
    this.handlers = sides.map(({ service }) => proxies.handlerOf(service, route))
    this.slots = sides.map(({ service }) => slotOf(branches, 'split', name, service.name))
    this.counter = counter
  }

  handle(exchange: Exchange): void {
    const key = this.keyOf === null ? '' : this.keyOf(exchange)
    const at = key === '' ? this.split.at(this.spread.next()) : this.split.of(key)
    this.counter.picked(this.slots[at]!)
    this.handlers[at]!.handle(exchange)
  }
}

/** Where the branch is counted. */
export function slotOf(branches: readonly Branch[], kind: Branch['kind'], route: string, service: string): number {
  return branches.find((one) => one.kind === kind && one.route === route && one.service === service)!.slot
}
