// One meaning for each path: what decides the route is what the service gets, and whatever the service may read
// otherwise is refused.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { compile } from '../../../src/config/compile.js'
import { loadSettings } from '../../../src/config/load.js'
import { createMatcher } from '../../../src/config/match.js'
import { canonicalPath, type PathRules } from '../../../src/config/patterns.js'
import { configSchema } from '../../../src/config/schema.js'

const usual: PathRules = { mergeSlashes: true, escapedSlashes: 'refuse' }
const keeping: PathRules = { mergeSlashes: true, escapedSlashes: 'keep' }
const unmerged: PathRules = { mergeSlashes: false, escapedSlashes: 'refuse' }

test.each([
  ['/', '/'],
  ['/a/b', '/a/b'],
  ['/%61%7E%2d', '/a~-'],
  ['/%c3%a9%2c', '/%C3%A9%2C'],
  ['/%2561', '/%2561'],
  ['//a///b//', '/a/b/'],
  ['/a/./b/.', '/a/b/'],
  ['/a/b/../c', '/a/c'],
  ['/a/b/..', '/a/'],
  ['/a/..', '/'],
  ['/a//../b', '/b'],
  ['/%2e/a/%2E%2e/b', '/b'],
  ['/.well-known/...', '/.well-known/...'],
  ['/a;b/..c', '/a;b/..c'],
])('%s means %s', (path, canonical) => {
  expect(canonicalPath(path, usual)).toBe(canonical)
})

test.each([
  '/..',
  '/a/../..',
  '/%2e%2e/a',
  '/%',
  '/%4',
  '/%zz',
  '/a%00b',
  '/a\\b',
  '/a%2fb',
  '/a%2Fb',
  '/a%5Cb',
  '/..;/a',
  '/.;x',
  '/%2e.;a=b/c',
])('%s means several things', (path) => {
  expect(canonicalPath(path, usual)).toBeNull()
})

test('slashes can be left alone, escaped ones as well', () => {
  expect(canonicalPath('//a//b/../', unmerged)).toBe('//a//')
  expect(canonicalPath('/a//../b', unmerged)).toBe('/a/b')
  expect(canonicalPath('/projects/a%2fb/x', keeping)).toBe('/projects/a%2Fb/x')
  for (const path of ['/a%2F..', '/a%2f../b', '/a/..%2Fb', '/a%5c..%5Cb', '/a%2F%2e%2E%2Fb', '/a%2F.']) {
    expect(canonicalPath(path, keeping)).toBeNull()
  }
})

/**
 * As the most obliging of services reads a path: everything decoded, backslashes turned, parameters cut off dots, dots
 * resolved.
 */
function obliging(path: string, decodesSlashes: boolean): string {
  const text = path.replace(/%([0-9a-f]{2})/gi, (triplet, digits: string) => {
    const character = String.fromCharCode(Number.parseInt(digits, 16))
    return decodesSlashes || !/[/\\]/.test(character) ? character : triplet.toUpperCase()
  })
  const out: string[] = []
  for (const segment of text.replaceAll('\\', '/').split('/')) {
    const name = /^\.\.?(;|$)/.test(segment) ? segment.replace(/;.*/, '') : segment
    if (name === '..') out.pop()
    else if (name !== '' && name !== '.') out.push(name)
  }
  return `/${out.join('/')}`
}

const routes = compile(
  configSchema.parse({
    services: { s: { endpoints: ['http://127.0.0.1:1'] } },
    routes: ['/', '/admin', '/admin/public', '/a/b'].map((path) => ({
      match: { path },
      service: 's',
      auth: 'none',
    })),
  }),
  loadSettings({}),
)
const match = createMatcher(routes)
const routeOf = (path: string) => match('h', path, 'GET', { header: () => '' })?.name

const pieces = [
  '/',
  '/',
  '.',
  '..',
  '%2e',
  '%2E',
  '%2f',
  '%2F',
  '%5c',
  '\\',
  ';',
  '%3b',
  'a',
  'b',
  'admin',
  '%61dmin',
  'admi%6E',
  'public',
  '%25',
  '%',
  '%00',
  '%252e',
]
const spelling = fc.array(fc.constantFrom(...pieces), { maxLength: 14 }).map((parts) => `/${parts.join('')}`)

describe('no spelling', () => {
  test.each([
    ['refused', usual, true],
    ['refused, slashes unmerged', unmerged, true],
    ['kept, for services that do not decode them', keeping, false],
  ] as const)('is served under another route than the service sees: escaped slashes %s', (_, rules, decodesSlashes) => {
    fc.assert(
      fc.property(spelling, (path) => {
        const canonical = canonicalPath(path, rules)
        if (canonical === null) return
        expect(canonicalPath(canonical, rules)).toBe(canonical)
        // A service that merges slashes where the gateway was told not to is what the setting warns of.
        if (!rules.mergeSlashes && canonical.includes('//')) return
        expect(routeOf(canonical)).toBe(routeOf(obliging(canonical, decodesSlashes)))
        if (rules.mergeSlashes) expect(obliging(canonical, decodesSlashes)).toBe(obliging(path, decodesSlashes))
      }),
      { numRuns: 20_000 },
    )
  })

  test('of a plain path means another: escaped, with dots and slashes put in', () => {
    const plain = fc.array(fc.constantFrom('a', 'b', 'admin', 'public', 'x.y', '~'), { minLength: 1, maxLength: 4 })
    fc.assert(
      fc.property(plain, fc.infiniteStream(fc.nat(9)), (segments, random) => {
        const next = () => random.next().value as number
        const respelt = segments.map((segment) => {
          const name = [...segment].map((c) => (next() < 4 ? `%${c.charCodeAt(0).toString(16)}` : c)).join('')
          return ['/', '//', '/./', '/x/../', '/%2e/', '/y/%2E./'][next() % 6] + name
        })
        expect(canonicalPath(respelt.join(''), usual)).toBe(`/${segments.join('/')}`)
      }),
    )
  })
})
