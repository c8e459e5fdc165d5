// Hosts, paths and values as the config writes them and as requests spell them, brought to one form so that the two can
// be compared. canonicalPath runs per request. What is signed and logged stays as it was sent.
import { domainToASCII } from 'node:url'

/** Lower case, and IDNs as they travel (RFC 5891); a `*.` in front stays. */
export function canonicalHost(host: string): string {
  const suffix = host.startsWith('*.')
  const name = suffix ? host.slice(2) : host
  // domainToASCII gives '' for names it refuses, an underscore or a bracket say: those have no other spelling.
  const ascii = domainToASCII(name) || name.toLowerCase()
  return suffix ? `*.${ascii}` : ascii
}

/** The name of a field, a method (RFC 9110, 5.6.2). */
export const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/
// biome-ignore lint/suspicious/noControlCharactersInRegex: the whole of ASCII is meant
export const NOT_ASCII = /[^\x00-\x7f]/

/** A text's UTF-8, a character a byte, as the values of a request's fields are. */
export function bytesOf(text: string): string {
  return NOT_ASCII.test(text) ? Buffer.from(text, 'utf8').latin1Slice() : text
}

/** Where services differ in how they read a path. */
export interface PathRules {
  /** `//` is `/`. */
  readonly mergeSlashes: boolean
  /** `%2F` and `%5C`: a service may decode them and see segments that the gateway did not. */
  readonly escapedSlashes: 'refuse' | 'keep'
}

/** RFC 3986, 2.3: an encoded one of these means the same as the character itself, everything else encoded does not. */
const UNRESERVED = /^[A-Za-z0-9._~-]$/

/** What a path may have to be spelled anew for; all others are canonical as they are. */
const SPELLED = /[%\\]|\/[/.]/

/** Not a percent sign and two digits; a NUL; a backslash, which some take for a slash. */
const NEVER = /%(?![0-9a-fA-F]{2})|%00|\\/
const ESCAPED_SLASH = /%2F|%5C/
/**
 * `..` next to an escaped slash climbs for whoever decodes it, and `..;x` for whoever cuts path parameters off, as Java
 * servers do.
 */
const HIDDEN_DOTS = /(?:\/|%2F|%5C)\.\.?(?:;|%3B|%2F|%5C)|(?:%2F|%5C)\.\.?(?:\/|$)/

/**
 * The one spelling of a path that decides route and policies and is forwarded (RFC 3986, 6.2.2): unreserved characters
 * decoded, other escapes in upper case, dot segments resolved, repeated slashes merged. Null for what the service might
 * read in another way than we do. Canonical paths stay as they are.
 */
export function canonicalPath(path: string, rules: PathRules): string | null {
  if (!SPELLED.test(path)) return path
  if (NEVER.test(path)) return null
  let result = decoded(path)
  if (rules.escapedSlashes === 'refuse' && ESCAPED_SLASH.test(result)) return null
  if (rules.mergeSlashes && result.indexOf('//') !== -1) result = result.replace(/\/{2,}/g, '/')
  if (result.indexOf('.') === -1) return result
  if (HIDDEN_DOTS.test(result)) return null
  return /\/\.\.?(?:\/|$)/.test(result) ? withoutDots(result) : result
}

/** RFC 3986, 5.2.4; null where `..` climbs above the root. */
function withoutDots(path: string): string | null {
  const segments: string[] = []
  const all = path.split('/')
  for (let i = 1; i < all.length; i++) {
    const segment = all[i] as string
    const isLast = i === all.length - 1
    if (segment === '..') {
      if (segments.pop() === undefined) return null
      if (isLast) segments.push('')
    } else if (segment !== '.') segments.push(segment)
    else if (isLast) segments.push('')
  }
  return `/${segments.join('/')}`
}

function decoded(path: string): string {
  return path.indexOf('%') === -1 ? path : path.replace(/%[0-9a-fA-F]{2}/g, decodeUnreserved)
}

function decodeUnreserved(triplet: string): string {
  const character = String.fromCharCode(Number.parseInt(triplet.slice(1), 16))
  return UNRESERVED.test(character) ? character : triplet.toUpperCase()
}

export interface PathPattern {
  /** What `tidegate routes` shows; a prefix without its trailing slash, '/' for everything. */
  readonly text: string
  /** The whole path must match, not only its first segments. */
  readonly exact: boolean
  /** Literal segments and `:names`. A prefix of `/` has none; an exact `/` has one, empty. */
  readonly segments: readonly string[]
}

/** A pattern with an escaped slash is for gateways that keep it. */
const AS_WRITTEN: PathRules = { mergeSlashes: false, escapedSlashes: 'keep' }

/** Why a path cannot be a pattern, or null. */
export function patternProblem(path: string): string | null {
  if (!path.startsWith('/')) return `must start with '/', "${path}" does not`
  if (/[?#]/.test(path)) return 'is a path: no query and no fragment'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\u0000-\u0020\u007f]/.test(path)) return 'must not contain blanks or control characters'
  if (/%(?![0-9a-fA-F]{2})/.test(path)) return 'has a % that is not followed by two hex digits'
  if (path.includes('*')) return "has no wildcards: a prefix covers what lies below it, ':name' stands for one segment"
  if (path.includes('\\')) return 'must not contain backslashes'
  if (/%00/.test(path)) return 'must not contain %00'
  const canonical = canonicalPath(path, AS_WRITTEN)
  if (canonical === null || canonical !== decoded(path)) return "must not contain '.' or '..' segments"
  if (path.includes('//')) return 'must not contain empty segments'
  for (const segment of path.split('/')) {
    if (/^:(?![A-Za-z_][A-Za-z0-9_]*$)/.test(segment)) return `has "${segment}": a parameter is ':' and a name`
  }
  return null
}

export function parsePattern(path: string, exact: boolean): PathPattern {
  // Requests carry non-ASCII characters percent-encoded; people write them as they are.
  const ascii = path.replace(/[^\u0021-\u007e]+/gu, encodeURIComponent)
  const canonical = canonicalPath(ascii, AS_WRITTEN) as string
  const text = exact || canonical === '/' ? canonical : canonical.replace(/\/+$/, '')
  const segments = text === '/' && !exact ? [] : text.split('/').slice(1)
  return { text: text === '' ? '/' : text, exact, segments: text === '' ? [] : segments }
}

/** Parameters of the pattern compare equal whatever they are called. */
export function isParameter(segment: string): boolean {
  return segment.startsWith(':')
}

/** The path keys of a route's match, as the configuration has them. */
interface PathMatch {
  readonly path?: string | undefined
  readonly exactPath?: string | undefined
  readonly trailingSlash?: 'strict' | 'ignore' | undefined
}

export function patternOf({ match }: { readonly match: PathMatch }): PathPattern {
  const { path, exactPath, trailingSlash } = match
  if (exactPath === undefined) return parsePattern(path ?? '/', false)
  // Where a slash at the end is ignored, the pattern has none.
  return parsePattern(trailingSlash === 'ignore' ? exactPath.replace(/(?!^)\/$/, '') : exactPath, true)
}
