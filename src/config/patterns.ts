// Hosts and paths as the config writes them and as requests spell them, brought to one form so that the two can be compared.
// canonicalPath runs per request, for matching only: what is signed and forwarded stays as it was sent.
import { domainToASCII } from 'node:url'

/** Lower case, and IDNs as they travel (RFC 5891); a `*.` in front stays. */
export function canonicalHost(host: string): string {
  const suffix = host.startsWith('*.')
  const name = suffix ? host.slice(2) : host
  // domainToASCII gives '' for names it refuses, an underscore or a bracket say: those have no other spelling.
  const ascii = domainToASCII(name) || name.toLowerCase()
  return suffix ? `*.${ascii}` : ascii
}

/** RFC 3986, 2.3: an encoded one of these means the same as the character itself, everything else encoded does not. */
const UNRESERVED = /^[A-Za-z0-9._~-]$/

/**
 * The path with encoded unreserved characters decoded and other escapes in upper case (RFC 3986, 6.2.2), or null where it has a `.` or
 * `..` segment. Without the first, `/%61dmin` slips past a rule for `/admin`; without the second `/public/../admin` does, since the
 * upstream would resolve it. A decoded slash would move segment boundaries, so %2F stays.
 */
export function canonicalPath(path: string): string | null {
  const decoded = path.indexOf('%') === -1 ? path : path.replace(/%[0-9a-fA-F]{2}/g, decodeUnreserved)
  if (decoded.indexOf('/.') !== -1 && /\/\.\.?(\/|$)/.test(decoded)) return null
  return decoded
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

/** Why a path cannot be a pattern, or null. */
export function patternProblem(path: string): string | null {
  if (!path.startsWith('/')) return `must start with '/', "${path}" does not`
  if (/[?#]/.test(path)) return 'is a path: no query and no fragment'
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  if (/[\u0000-\u0020\u007f]/.test(path)) return 'must not contain blanks or control characters'
  if (/%(?![0-9a-fA-F]{2})/.test(path)) return 'has a % that is not followed by two hex digits'
  if (path.includes('*')) return "has no wildcards: a prefix covers what lies below it, ':name' stands for one segment"
  if (canonicalPath(path) === null) return "must not contain '.' or '..' segments"
  for (const segment of path.split('/')) {
    if (/^:(?![A-Za-z_][A-Za-z0-9_]*$)/.test(segment)) return `has "${segment}": a parameter is ':' and a name`
  }
  return null
}

export function parsePattern(path: string, exact: boolean): PathPattern {
  // Requests carry non-ASCII characters percent-encoded; people write them as they are.
  const ascii = path.replace(/[^\u0021-\u007e]+/gu, encodeURIComponent)
  const canonical = canonicalPath(ascii) as string
  const text = exact || canonical === '/' ? canonical : canonical.replace(/\/+$/, '')
  const segments = text === '/' && !exact ? [] : text.split('/').slice(1)
  return { text: text === '' ? '/' : text, exact, segments: text === '' ? [] : segments }
}

/** Parameters of the pattern compare equal whatever they are called. */
export function isParameter(segment: string): boolean {
  return segment.startsWith(':')
}

/** What a matched path has after the route's literal prefix: '' or '/…'. */
export function cutPrefix(path: string, prefix: string): string {
  if (path.startsWith(prefix)) return path.slice(prefix.length)
  // Spelled with escapes (`/%61pi` for `/api`), so of another length but of as many segments.
  return `/${path.split('/').slice(prefix.split('/').length).join('/')}`
}
