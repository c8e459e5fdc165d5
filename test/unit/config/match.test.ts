import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Route } from '../../../src/config/compile.js'
import { compile } from '../../../src/config/compile.js'
import { loadSettings } from '../../../src/config/load.js'
import { createMatcher } from '../../../src/config/match.js'
import { canonicalPath } from '../../../src/config/patterns.js'
import { configSchema } from '../../../src/config/schema.js'

interface Match {
  host?: string | string[]
  path?: string
  exactPath?: string
  methods?: string[]
  headers?: Record<string, string>
  caseInsensitive?: boolean
  trailingSlash?: 'strict' | 'ignore'
}

const settings = loadSettings({})

function tableOf(routes: { name?: string; match: Match; priority?: number }[]) {
  const config = configSchema.parse({
    services: { s: { endpoints: ['http://127.0.0.1:1'] } },
    routes: routes.map((route, index) => ({ name: `r${index}`, ...route, service: 's', auth: 'none' })),
  })
  return compile(config, settings)
}

const headersOf = (headers: Record<string, string>) => ({ header: (name: string) => headers[name] ?? '' })
const none = headersOf({})

function matcherOf(routes: Parameters<typeof tableOf>[0]) {
  const match = createMatcher(tableOf(routes))
  return (path: string, { host = 'h', method = 'GET', headers = none } = {}) =>
    match(host, path, method, headers)?.name ?? null
}

test('a prefix ends at a segment boundary', () => {
  const match = matcherOf([{ name: 'api', match: { path: '/api' } }])
  for (const path of ['/api', '/api/', '/api/x', '/api/x/y', '/api//x']) expect(match(path)).toBe('api')
  for (const path of ['/apix', '/ap', '/', '/x/api', '/API', 'api', '*', '', 'http://h/api'])
    expect(match(path)).toBe(null)
})

test('a trailing slash of a prefix says nothing, that of an exact path does', () => {
  const match = matcherOf([
    { name: 'prefix', match: { path: '/a/' } },
    { name: 'exact', match: { exactPath: '/b/' } },
    { name: 'root', match: { exactPath: '/' } },
  ])
  expect(match('/a')).toBe('prefix')
  expect(match('/b/')).toBe('exact')
  expect(match('/b')).toBe(null)
  expect(match('/')).toBe('root')
  expect(match('/c')).toBe(null)
})

test('hosts: exact, then the longest suffix, then any; a suffix is not its own subdomain', () => {
  const match = matcherOf([
    { name: 'any', match: {} },
    { name: 'a', match: { host: '*.a.com' } },
    { name: 'b', match: { host: '*.b.a.com' } },
    { name: 'exact', match: { host: ['x.b.a.com', 'Y.a.com'] } },
    { name: 'idn', match: { host: 'bücher.example' } },
  ])
  const host = (name: string) => match('/', { host: name })
  expect(host('x.b.a.com')).toBe('exact')
  expect(host('x.b.a.com.')).toBe('exact')
  expect(host('y.a.com')).toBe('exact')
  expect(host('z.b.a.com')).toBe('b')
  expect(host('b.a.com')).toBe('a')
  expect(host('deep.x.a.com')).toBe('a')
  expect(host('a.com')).toBe('any')
  expect(host('xa.com')).toBe('any')
  expect(host('')).toBe('any')
  expect(host('xn--bcher-kva.example')).toBe('idn')
})

test('the longest path wins, exact before prefix, a literal before a parameter, then priority', () => {
  const match = matcherOf([
    { name: 'root', match: { path: '/' }, priority: 100 },
    { name: 'users', match: { path: '/users' } },
    { name: 'user', match: { path: '/users/:id' } },
    { name: 'me', match: { path: '/users/me' } },
    { name: 'me-exact', match: { exactPath: '/users/me' } },
    { name: 'posts', match: { path: '/users/:id/posts' } },
    { name: 'low', match: { path: '/p', methods: ['GET'] } },
    { name: 'high', match: { path: '/p' }, priority: 1 },
  ])
  expect(match('/')).toBe('root')
  expect(match('/users')).toBe('users')
  expect(match('/users/')).toBe('users')
  expect(match('/users/7')).toBe('user')
  expect(match('/users/me')).toBe('me-exact')
  expect(match('/users/me/x')).toBe('me')
  expect(match('/users/me/posts')).toBe('posts')
  expect(match('/users//posts')).toBe('users')
  expect(match('/p')).toBe('high')
})

test('a route that fits but for its method or headers is passed over for the next one, also across hosts', () => {
  const match = matcherOf([
    { name: 'any', match: {} },
    { name: 'suffix', match: { host: '*.a.com', methods: ['PUT', 'post'] } },
    { name: 'post', match: { host: 'x.a.com', path: '/api', methods: ['POST'] } },
    { name: 'get', match: { host: 'x.a.com', path: '/', methods: ['GET'] } },
    { name: 'beta', match: { host: 'x.a.com', path: '/', headers: { 'X-Beta': '1', 'x-b': '2' } } },
  ])
  const at = (path: string, method: string, headers = {}) =>
    match(path, { host: 'x.a.com', method, headers: headersOf(headers) })
  expect(at('/api', 'POST')).toBe('post')
  expect(at('/api', 'GET')).toBe('get')
  expect(at('/api', 'get')).toBe('any')
  expect(at('/api', 'PUT')).toBe('suffix')
  expect(at('/', 'POST')).toBe('suffix')
  expect(at('/', 'DELETE')).toBe('any')
  expect(at('/', 'DELETE', { 'x-beta': '1', 'x-b': '2' })).toBe('beta')
  expect(at('/', 'DELETE', { 'x-beta': '1', 'x-b': '3' })).toBe('any')
  expect(at('/', 'GET', { 'x-beta': '1', 'x-b': '2' })).toBe('get')
})

test('patterns are in the form that requests are brought to', () => {
  const match = matcherOf([
    { name: 'root', match: { path: '/' } },
    { name: 'admin', match: { path: '/%61dmin' } },
    { name: 'cafe', match: { path: '/café' } },
  ])
  const rules = { mergeSlashes: true, escapedSlashes: 'refuse' } as const
  for (const path of ['/admin', '/%61dmin/x', '//admin', '/x/../admin', '/x/%2e%2E/admin']) {
    expect(match(canonicalPath(path, rules) as string)).toBe('admin')
  }
  expect(match(canonicalPath('/caf%c3%a9/x', rules) as string)).toBe('cafe')
  expect(match(canonicalPath('/%41dmin', rules) as string)).toBe('root')
})

describe('against a matcher that tries every route', () => {
  /** All that fits, then the best of it by comparing one quality after the other. Shares no code with the tree. */
  function reference(
    routes: readonly Route[],
    host: string,
    path: string,
    method: string,
    headers: Record<string, string>,
  ) {
    const qualities = (route: Route, hostRank: number): (number | string)[] => [
      hostRank,
      -route.match.path.segments.length,
      route.match.path.exact ? 0 : 1,
      route.match.path.segments.map((segment) => (segment[0] === ':' ? '1' : '0')).join(''),
      -route.match.priority,
      Number(route.match.caseInsensitive),
      Number(route.match.slashIgnored),
      route.match.methods === null ? 1 : 0,
      -route.match.headers.length,
      route.index,
    ]
    let best: { route: Route; qualities: (number | string)[] } | null = null
    for (const route of routes) {
      const { match } = route
      const pattern = match.path.segments.map((segment) => (segment[0] === ':' ? '/[^/]+' : `/${segment}`)).join('')
      const end = match.slashIgnored ? (pattern === '/' ? '' : '/?') : match.path.exact ? '' : '(/.*)?'
      const flags = match.caseInsensitive ? 'i' : ''
      if (!path.startsWith('/') || !new RegExp(`^${pattern}${end}$`, flags).test(path)) continue
      if (match.methods !== null && !match.methods.has(method)) continue
      if (match.headers.some(([name, value]) => (headers[name] ?? '') !== value)) continue
      const ranks = match.hosts.length === 0 ? [1] : []
      for (const pattern of match.hosts) {
        if (pattern === host) ranks.push(-1000)
        if (pattern.startsWith('*.') && host.endsWith(pattern.slice(1)) && host.length >= pattern.length)
          ranks.push(-pattern.length)
      }
      if (ranks.length === 0) continue
      const found = { route, qualities: qualities(route, Math.min(...ranks)) }
      const at = best === null ? 0 : found.qualities.findIndex((quality, i) => quality !== best?.qualities[i])
      if (best === null || (found.qualities[at] as number) < (best.qualities[at] as number)) best = found
    }
    return best?.route.name ?? null
  }

  const segment = fc.constantFrom('a', 'b', 'ab', 'c', 'A', 'B')
  const pattern = fc
    .array(fc.oneof(segment, fc.constantFrom(':x', ':y')), { maxLength: 4 })
    .chain((segments) => fc.constantFrom(`/${segments.join('/')}`, `/${segments.join('/')}/`.replace('//', '/')))
  const hostName = fc.constantFrom('a.com', 'x.a.com', 'y.x.a.com', 'b.org')
  const hostPattern = fc.constantFrom('a.com', 'x.a.com', '*.a.com', '*.x.a.com', '*.com')
  const method = fc.constantFrom('GET', 'POST', 'PUT')
  const header = fc.dictionary(fc.constantFrom('x-a', 'x-b'), fc.constantFrom('1', '2'))
  const route = fc
    .record({
      host: fc.option(fc.uniqueArray(hostPattern, { minLength: 1, maxLength: 3 }), { nil: undefined }),
      path: pattern,
      exact: fc.boolean(),
      caseInsensitive: fc.boolean(),
      slashIgnored: fc.boolean(),
      methods: fc.option(fc.uniqueArray(method, { minLength: 1 }), { nil: undefined }),
      headers: fc.option(header, { nil: undefined }),
      priority: fc.integer({ min: 0, max: 2 }),
    })
    .map(({ host, path, exact, caseInsensitive, slashIgnored, methods, headers, priority }) => ({
      priority,
      match: {
        ...(host === undefined ? {} : { host }),
        ...(exact ? { exactPath: path } : { path }),
        ...(caseInsensitive ? { caseInsensitive } : {}),
        ...(exact && slashIgnored ? { trailingSlash: 'ignore' as const } : {}),
        ...(methods === undefined ? {} : { methods }),
        ...(headers === undefined ? {} : { headers }),
      },
    }))
  const requestPath = fc
    .array(fc.oneof({ weight: 9, arbitrary: segment }, fc.constantFrom('', 'd')), { maxLength: 6 })
    .map((segments) => `/${segments.join('/')}`)
  const request = fc.tuple(hostName, requestPath, method, header)

  test('every request gets the same route', () => {
    let matched = 0
    fc.assert(
      fc.property(
        fc.array(route, { minLength: 1, maxLength: 60, size: 'max' }),
        fc.array(request, { minLength: 1, maxLength: 30, size: 'max' }),
        (routes, requests) => {
          const table = tableOf(routes)
          const match = createMatcher(table)
          for (const [host, path, verb, headers] of requests) {
            const found = match(host, path, verb, headersOf(headers))?.name ?? null
            if (found !== null) matched++
            expect(found).toBe(reference(table.routes, host, path, verb, headers))
          }
        },
      ),
      { numRuns: 300 },
    )
    expect(matched).toBeGreaterThan(1000)
  })
})
