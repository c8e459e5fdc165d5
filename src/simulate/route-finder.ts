// Which route a logged request gets under a configuration. config/match.ts decides; here is only what the log leaves
// open: it has neither the host nor the headers of a request. So the matcher is asked for every host and set of headers
// that the configuration tells apart. If they all lead to one route, it is certain. Otherwise the route that the log
// names is taken, if the request can have reached it. Pure.
import type { Route, RouteTable } from '../config/compile.js'
import { createMatcher, type Matcher } from '../config/match.js'
import { canonicalPath } from '../config/patterns.js'
import type { Entry } from './entry.js'

/** Beyond so many combinations of hosts and headers, no route is certain: the log's name decides. */
const MOST_VARIANTS = 256
/** What ends a path that the log has cut short. */
const CUT = '…'

type Headers = ReadonlyMap<string, string>

interface Variant {
  readonly host: string
  readonly headers: { header(name: string): string }
}

/** No host in a configuration is called so. */
const OTHER_HOST = ''

export interface Found {
  /** Null: no route. */
  readonly route: Route | null
  /** `log`: several are possible, and the log names one of them. `open`: it names none of them. */
  readonly by: 'path' | 'log' | 'open'
}

/** The path is not accepted under this configuration: 400. */
export const BAD_PATH = 'bad path'

export class RouteFinder {
  private readonly match: Matcher
  private readonly byName: ReadonlyMap<string, Route>
  private readonly variants: readonly Variant[]
  private readonly isWhole: boolean
  private readonly paths: RouteTable['paths']
  private readonly certain = new Map<Route | null, Found>()
  private readonly byLog = new Map<Route | null, Found>()

  constructor(table: RouteTable) {
    this.match = createMatcher(table)
    this.byName = new Map(table.routes.map((route) => [route.name, route]))
    const { variants, isWhole } = variantsOf(table.routes)
    this.variants = variants
    this.isWhole = isWhole
    this.paths = table.paths
    for (const route of [null, ...table.routes]) {
      this.certain.set(route, { route, by: 'path' })
      this.byLog.set(route, { route, by: 'log' })
    }
  }

  find(entry: Entry): Found | typeof BAD_PATH {
    const named = entry.route === '' ? null : (this.byName.get(entry.route) ?? null)
    // The log has only its beginning.
    if (entry.path.endsWith(CUT)) return named === null ? OPEN : (this.byLog.get(named) as Found)
    const path = canonicalPath(entry.path, this.paths)
    if (path === null) return BAD_PATH
    const { variants } = this
    const first = this.ask(variants[0] as Variant, path, entry.method)
    let isOpen = !this.isWhole
    let isNamed = first === named
    for (let i = 1; i < variants.length; i++) {
      const route = this.ask(variants[i] as Variant, path, entry.method)
      if (route !== first) isOpen = true
      if (route === named) isNamed = true
    }
    if (!isOpen) return this.certain.get(first) as Found
    if (!this.isWhole && named !== null)
      isNamed = variantsOf([named]).variants.some((one) => this.ask(one, path, entry.method) === named)
    // A request that no route took has none to go by, and neither has one whose route the configuration does not have.
    const canDecide = isNamed && (named !== null || entry.code === 'no_route')
    return canDecide ? (this.byLog.get(named) as Found) : OPEN
  }

  private ask({ host, headers }: Variant, path: string, method: string): Route | null {
    return this.match(host, path, method, headers)
  }
}

const OPEN: Found = { route: null, by: 'open' }

/** The hosts and headers that these routes tell apart, in all combinations as far as they are not too many. */
function variantsOf(routes: readonly Route[]): { variants: Variant[]; isWhole: boolean } {
  const hosts = new Set([OTHER_HOST])
  const values = new Map<string, Set<string>>()
  for (const { match } of routes) {
    // A label that nobody has in front stands for any host below the suffix.
    for (const host of match.hosts) hosts.add(host.startsWith('*.') ? `.${host.slice(1)}` : host)
    for (const [name, value] of match.headers) values.set(name, (values.get(name) ?? new Set(['']).add('')).add(value))
  }
  let sets: Headers[] = [new Map()]
  for (const [name, possible] of values) {
    sets = sets.flatMap((headers) => [...possible].map((value) => new Map(headers).set(name, value)))
    if (sets.length * hosts.size > MOST_VARIANTS) break
  }
  const variants = [...hosts].flatMap((host) =>
    sets.map((headers): Variant => ({ host, headers: { header: (name) => headers.get(name) ?? '' } })),
  )
  return { variants: variants.slice(0, MOST_VARIANTS), isWhole: variants.length <= MOST_VARIANTS }
}
