// The kinds of handlers by name, and the handlers of one generation. config/handlers.ts has the same kinds: which
// keys of the configuration choose each, and how these are compiled. Runs when a generation begins, not per request.
import type { HandlerRules, ProxyRules, Route, RouteTable, SplitRules, StaticRules } from '../config/compile.js'
import type { BranchCounter, Handler, HandlerContext } from './handler.js'
import { MirroredHandler, type MirrorParts } from './mirror/mirrored-handler.js'
import { Proxies, type ProxyParts } from './proxy/proxy.js'
import { SplitHandler } from './split.js'
import { StaticHandler } from './static.js'

/** What the worker gives the handlers of each generation. */
export type HandlerParts = ProxyParts & MirrorParts & { readonly branches: BranchCounter }

/** Makes the handlers of one kind, in one generation. */
export interface HandlerMaker {
  /** Called once for each route that has a handler of this kind, and for each fallback. */
  make(rules: HandlerRules, route: Route): Handler
  /** No exchange of the generation is left. */
  close?(): void
}

/** @param proxies those of all services */
type HandlerKind = (context: HandlerContext, parts: HandlerParts, table: RouteTable, proxies: Proxies) => HandlerMaker

/** By HandlerRules.kind. */
const kinds = new Map<string, HandlerKind>([
  [
    'proxy',
    (_context, _parts, _table, proxies) => ({
      make: ({ service }: ProxyRules, route) => proxies.handlerOf(service, route),
    }),
  ],
  [
    'split',
    (_context, { branches }, table, proxies) => ({
      make: (rules: SplitRules, route) => new SplitHandler(rules, route, table.branches, proxies, branches),
    }),
  ],
  ['static', (context) => ({ make: (rules: StaticRules) => new StaticHandler(context, rules) })],
])

/** The code of a kind that addHandlerKind (config/handlers.ts) has added to the configuration. */
export function implementHandlerKind(name: string, kind: HandlerKind): void {
  kinds.set(name, kind)
}

/** The handlers of one generation. */
export class Handlers {
  /** By Route.index. */
  readonly ofRoutes: readonly Handler[]
  /** The same; null for a route without a fallback. */
  readonly fallbacks: readonly (Handler | null)[]
  private readonly makers = new Map<string, HandlerMaker>()
  private readonly proxies: Proxies

  constructor(context: HandlerContext, parts: HandlerParts, table: RouteTable) {
    const proxies = new Proxies(context, parts, table)
    const make = (rules: HandlerRules, route: Route): Handler => {
      let maker = this.makers.get(rules.kind)
      if (maker === undefined) {
        const kind = kinds.get(rules.kind)
        if (kind === undefined) throw new Error(`no code for handlers of the kind "${rules.kind}"`)
        maker = kind(context, parts, table, proxies)
        this.makers.set(rules.kind, maker)
      }
      return maker.make(rules, route)
    }
    const mirrored = (handler: Handler, route: Route): Handler =>
      route.mirror === null
        ? handler
        : new MirroredHandler(handler, route.mirror, route, table, proxies, context, parts)
    this.proxies = proxies
    this.ofRoutes = table.routes.map((route) => mirrored(make(route.handler, route), route))
    this.fallbacks = table.routes.map((route) => (route.fallback === null ? null : make(route.fallback, route)))
  }

  close(): void {
    for (const maker of this.makers.values()) maker.close?.()
    this.proxies.close()
  }
}
