// Warnings of `tidegate check`: guarded routes whose path matches an open route when it is spelled in another case, or
// with or without a slash at its end. Many services treat both as the same path (docs/framing.md). Pure, never on a
// request's way; uses the real matcher.
import { compile, type Route } from '../config/compile.js'
import type { Loaded } from '../config/load.js'
import { createMatcher, type Matcher } from '../config/match.js'
import { isParameter } from '../config/patterns.js'

/** Returns one line per such route. */
export function spellingWarnings({ config, settings, routesAt }: Loaded): string[] {
  const { routes } = compile(config, settings)
  const match = createMatcher({ routes })
  const probes = probesOf(routes.filter(isOpen))
  return routes
    .filter((route) => !isOpen(route))
    .flatMap((route) => {
      const falls = otherSpellings(route).flatMap(({ paths, remedy }) => {
        for (const path of paths) {
          const to = openRouteFor(route, path, probes, match)
          if (to !== null) return [{ path, remedy, to }]
        }
        return []
      })
      if (falls.length === 0) return []
      const spelled = falls.map(({ path, to }) => `"${path}" falls to ${nameOf(to)}`).join(', and ')
      const remedies = [...new Set(falls.map(({ remedy }) => remedy))].join(' and ')
      return `${routesAt[route.index]}: ${nameOf(route)} is guarded, but ${spelled}, which is open; if its service takes that for the same path, add ${remedies}`
    })
}

function nameOf({ index, match: { path } }: Route): string {
  return `routes[${index}] ("${path.text}")`
}

function isOpen({ auth, addresses }: Route): boolean {
  return auth.length === 0 && addresses === null
}

/** A request that some open route takes. */
interface Probe {
  readonly method: string
  readonly headers: Parameters<Matcher>[3]
}

/** Each combination of methods and headers once. */
function probesOf(open: readonly Route[]): Probe[] {
  const probes = new Map<string, Probe>()
  const methods = new Set(['GET', ...open.flatMap(({ match }) => [...(match.methods ?? [])])])
  for (const { match } of open) {
    const values = new Map(match.headers)
    const headers = { header: (name: string) => values.get(name) ?? '' }
    for (const method of match.methods ?? methods)
      probes.set(JSON.stringify([method, match.headers]), { method, headers })
  }
  return [...probes.values()]
}

function openRouteFor({ match: { hosts, methods } }: Route, path: string, probes: readonly Probe[], match: Matcher) {
  for (const pattern of hosts.length === 0 ? [''] : hosts) {
    const host = pattern.startsWith('*.') ? `a${pattern.slice(1)}` : pattern
    for (const { method, headers } of probes) {
      if (methods !== null && !methods.has(method)) continue
      const found = match(host, path, method, headers)
      if (found !== null && isOpen(found)) return found
    }
  }
  return null
}

/** Other spellings of the route's path, each with the option that makes the route match it. */
function otherSpellings({ match }: Route): { paths: string[]; remedy: string }[] {
  const { exact, segments } = match.path
  const plain = segments.map((segment) => (isParameter(segment) ? 'x' : segment))
  const path = `/${plain.join('/')}`
  // The whole path, and one segment at a time: with an open /api, /API/ADMIN matches no route, but /api/ADMIN matches
  // /api.
  const inOtherCase = [
    plain.map(otherCase),
    ...plain.map((_, at) => plain.map((text, index) => (index === at ? otherCase(text) : text))),
  ].map((spelled) => `/${spelled.join('/')}`)
  const slashed = path.endsWith('/') ? path.slice(0, -1) : `${path}/`
  return [
    { paths: inOtherCase.filter((spelled) => spelled !== path), remedy: 'match.caseInsensitive: true' },
    { paths: exact && slashed !== '' ? [slashed] : [], remedy: 'match.trailingSlash: ignore' },
  ]
}

function otherCase(text: string): string {
  const upper = text.toUpperCase()
  return upper === text ? text.toLowerCase() : upper
}
