// Finds the route for host, path, method and headers: the second step of a request's way. Runs per request. Everything
// that depends on the routes alone is computed once, and a request allocates nothing unless hosts are matched by
// suffix.
//
// Precedence, first difference decides:
//   1. host      exact, then the longest `*.suffix`, then any              (Gateway API, Envoy's virtual hosts)
//   2. path      more segments, then exact before prefix                   (Gateway API, Kong; nginx's longest prefix)
//   3. segments  from the left, a literal before a `:param`
//   4. priority  higher first. Below the path: unlike Traefik's it cannot lift a `/` over an `/api`
//   5. spelling  a path as it is written before one in any case, and before one with a slash behind it or without
//   6. methods   a route that lists some before one that takes any         (Gateway API)
//   7. headers   more of them first                                        (Gateway API)
//   8. order in the file. Only for overlaps: load.ts refuses routes that nothing distinguishes
// If a route fits except for method or headers, the search goes on with the next one, also across hosts, as in Traefik;
// Envoy stops at the virtual host.
import type { Route, RouteTable } from './compile.js'
import { isParameter } from './patterns.js'

interface HeaderSource {
  /** Returns the first value of a header by its lower-case name; '' if it is missing. */
  header(name: string): string
}

export type Matcher = (host: string, path: string, method: string, headers: HeaderSource) => Route | null

/** `host` in lower case without port, `path` canonical (config/patterns.ts), without query, `method` as sent. */
export function createMatcher(table: Pick<RouteTable, 'routes'>): Matcher {
  const hosts = new Hosts(table.routes)
  return (host, path, method, headers) => hosts.match(host, path, method, headers)
}

/** Sorts routes by precedence, from the path on. */
export function byPrecedence(routes: readonly Route[]): Route[] {
  return [...routes].sort((a, b) => {
    const left = a.match
    const right = b.match
    const byLength =
      right.path.segments.length - left.path.segments.length || Number(right.path.exact) - Number(left.path.exact)
    if (byLength !== 0) return byLength
    for (let i = 0; i < left.path.segments.length; i++) {
      const byKind =
        Number(isParameter(left.path.segments[i] as string)) - Number(isParameter(right.path.segments[i] as string))
      if (byKind !== 0) return byKind
    }
    return (
      right.priority - left.priority ||
      Number(left.caseInsensitive) - Number(right.caseInsensitive) ||
      Number(left.slashIgnored) - Number(right.slashIgnored) ||
      Number(right.methods !== null) - Number(left.methods !== null) ||
      right.headers.length - left.headers.length ||
      a.index - b.index
    )
  })
}

class Hosts {
  private readonly exact = new Map<string, PathTree>()
  private readonly suffixes = new Map<string, PathTree>()
  private readonly any = new PathTree()

  constructor(routes: readonly Route[]) {
    byPrecedence(routes).forEach((route, rank) => {
      if (route.match.hosts.length === 0) this.any.add(route, rank)
      for (const host of route.match.hosts) {
        if (host.startsWith('*.')) treeOf(this.suffixes, host.slice(2)).add(route, rank)
        else treeOf(this.exact, host).add(route, rank)
      }
    })
  }

  match(rawHost: string, path: string, method: string, headers: HeaderSource): Route | null {
    // A target that is not a path matches nothing.
    if (path.charCodeAt(0) !== SLASH) return null
    // A fully qualified host name may end in a dot (RFC 1034, 3.1).
    const host = rawHost.charCodeAt(rawHost.length - 1) === DOT ? rawHost.slice(0, -1) : rawHost
    const exact = this.exact.get(host)
    if (exact !== undefined) {
      const route = exact.match(path, method, headers)
      if (route !== null) return route
    }
    if (this.suffixes.size > 0) {
      for (let dot = host.indexOf('.'); dot !== -1; dot = host.indexOf('.', dot + 1)) {
        const tree = this.suffixes.get(host.slice(dot + 1))
        const route = tree === undefined ? null : tree.match(path, method, headers)
        if (route !== null) return route
      }
    }
    return this.any.match(path, method, headers)
  }
}

function treeOf(trees: Map<string, PathTree>, key: string): PathTree {
  let tree = trees.get(key)
  if (tree === undefined) {
    tree = new PathTree()
    trees.set(key, tree)
  }
  return tree
}

const SLASH = 0x2f
const DOT = 0x2e

interface Candidate {
  readonly route: Route
  /** Rank in the order of precedence: the lower rank wins. */
  readonly rank: number
  readonly methods: ReadonlySet<string> | null
  readonly headers: readonly (readonly [name: string, value: string])[]
}

/** One node of a host's pattern tree. `exact` and `prefix` hold the routes that end here, in order of rank. */
class PathNode {
  readonly literal: string
  readonly exact: Candidate[] = []
  readonly prefix: Candidate[] = []
  /** By hash of the segment: a string key would have to be cut out of the path first. */
  literals: Map<number, PathNode> | null = null
  /** The next literal with the same hash under the same parent. */
  nextOfHash: PathNode | null = null
  parameter: PathNode | null = null

  constructor(literal: string) {
    this.literal = literal
  }
}

class PathTree {
  private readonly root = new PathNode('')
  /** The tree of the case-insensitive routes, in lower case; null if there are none. */
  private folded: PathTree | null = null
  // The request being matched. Fields replace arguments because the recursive walk is synchronous.
  private path = ''
  private method = ''
  private headers: HeaderSource = NO_HEADERS
  private best: Candidate | null = null

  add(route: Route, rank: number): void {
    if (!route.match.caseInsensitive) return this.insert(route, rank)
    this.folded ??= new PathTree()
    this.folded.insert(route, rank)
  }

  private insert(route: Route, rank: number): void {
    const { path, caseInsensitive, slashIgnored, methods, headers } = route.match
    let node = this.root
    for (const segment of path.segments) {
      if (isParameter(segment)) {
        node.parameter ??= new PathNode('')
        node = node.parameter
      } else {
        node = literalChild(node, caseInsensitive ? segment.toLowerCase() : segment)
      }
    }
    const candidate = { route, rank, methods, headers }
    if (!path.exact) node.prefix.push(candidate)
    else {
      node.exact.push(candidate)
      // The trailing slash begins an empty segment. `/` already has one.
      if (slashIgnored && path.text !== '/') literalChild(node, '').exact.push(candidate)
    }
  }

  match(path: string, method: string, headers: HeaderSource): Route | null {
    let found = this.find(path, method, headers, null)
    if (this.folded !== null) found = this.folded.find(path.toLowerCase(), method, headers, found)
    return found === null ? null : found.route
  }

  /** Returns the route of lowest rank among those that fit and `best`. */
  private find(path: string, method: string, headers: HeaderSource, best: Candidate | null): Candidate | null {
    this.path = path
    this.method = method
    this.headers = headers
    this.best = best
    this.walk(this.root, 0)
    this.headers = NO_HEADERS
    return this.best
  }

  /**
   * `at` is the slash before the next segment, or the end of the path. Parameters branch, so `best` carries the lowest
   * rank so far.
   */
  private walk(node: PathNode, at: number): void {
    const path = this.path
    if (at === path.length) {
      if (node.exact.length > 0) this.take(node.exact)
    } else if (node.literals !== null || node.parameter !== null) {
      const start = at + 1
      const slash = path.indexOf('/', start)
      const end = slash === -1 ? path.length : slash
      if (node.literals !== null) {
        let child = node.literals.get(hashOf(path, start, end)) ?? null
        while (child !== null && !(child.literal.length === end - start && path.startsWith(child.literal, start))) {
          child = child.nextOfHash
        }
        if (child !== null) this.walk(child, end)
      }
      // RFC 3986 allows an empty segment, but a parameter needs a value.
      if (node.parameter !== null && end > start) this.walk(node.parameter, end)
    }
    if (node.prefix.length > 0) this.take(node.prefix)
  }

  private take(candidates: readonly Candidate[]): void {
    for (let i = 0; i < candidates.length; i++) {
      const candidate = candidates[i] as Candidate
      if (this.best !== null && this.best.rank < candidate.rank) return
      if (candidate.methods !== null && !candidate.methods.has(this.method)) continue
      if (!this.headersFit(candidate)) continue
      this.best = candidate
      return
    }
  }

  private headersFit(candidate: Candidate): boolean {
    const wanted = candidate.headers
    for (let i = 0; i < wanted.length; i++) {
      const pair = wanted[i] as readonly [string, string]
      if (this.headers.header(pair[0]) !== pair[1]) return false
    }
    return true
  }
}

const NO_HEADERS: HeaderSource = { header: () => '' }

function literalChild(node: PathNode, literal: string): PathNode {
  node.literals ??= new Map()
  const hash = hashOf(literal, 0, literal.length)
  const first = node.literals.get(hash) ?? null
  for (let child = first; child !== null; child = child.nextOfHash) if (child.literal === literal) return child
  const child = new PathNode(literal)
  child.nextOfHash = first
  node.literals.set(hash, child)
  return child
}

/**
 * FNV-1a cut to 30 bits, a small integer for V8. Only segments of the config are in the maps, so clients cannot flood
 * them.
 */
function hashOf(text: string, start: number, end: number): number {
  let hash = 0x811c9dc5
  for (let i = start; i < end; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return hash & 0x3fffffff
}
