// One endpoint of a service as people write it: the origin of an HTTP server, or the path of a Unix socket, with a
// weight and a zone where it has them. Says what is wrong with the text, and what it means. Pure. The configuration
// uses it, and primary/reload.ts for endpoints that are set at run time.
import { posix } from 'node:path'

export interface EndpointAddress {
  /** The one spelling that logs, metrics and status show: `http://127.0.0.1:9000`, `unix:/run/orders.sock`. */
  readonly origin: string
  /** host[:port] as it goes into the Host header. A Unix socket has no name: `localhost`, as nginx and curl send. */
  readonly authority: string
  readonly hostname: string
  /** Null where it is reached over TCP. */
  readonly socketPath: string | null
}

/** An endpoint with all that can be said of it. */
export interface EndpointOptions {
  readonly url: string
  /** Its share of the requests, next to the weights of the others. */
  readonly weight: number
  /** '' where it has none. */
  readonly zone: string
}

/** As the configuration has it: a string where only the URL is given. */
export type EndpointConfig = string | EndpointOptions

export const DEFAULT_WEIGHT = 1

export function endpointOptions(entry: EndpointConfig): EndpointOptions {
  return typeof entry === 'string' ? { url: entry, weight: DEFAULT_WEIGHT, zone: '' } : entry
}

/** sun_path has 108 bytes on Linux, and a zero ends the path (unix(7)). */
const MAX_SOCKET_PATH_BYTES = 107

/** Null where nothing is. */
export function endpointProblem(text: string): string | null {
  if (text.startsWith('unix:/') && !text.startsWith('unix://')) return pathProblem(text.slice('unix:'.length))
  const other = OTHER_SPELLINGS.exec(text)?.[1]
  if (other !== undefined) return `is not how a Unix socket is written: write unix:${posix.normalize(other)}`
  if (/^unix:@/i.test(text)) return 'must be the path of a Unix socket: abstract names are not supported'
  if (/^unix[:@]/i.test(text)) return 'must have an absolute path behind unix:, as in unix:/run/orders.sock'
  if (!/^https?:\/\//i.test(text)) return 'must be an http:// or https:// URL, or unix:/path of a Unix socket'
  if (!URL.canParse(text)) return 'is not a URL'
  const url = new URL(text)
  if (url.username !== '' || url.password !== '') return 'must not carry a user name or password'
  if (text.includes('?')) return 'must not have a query'
  if (text.includes('#')) return 'must not have a fragment'
  if (url.pathname !== '/') return `must not have a path (it has "${url.pathname}"); use the route's rewrite`
  return null
}

/**
 * The spellings of other programs, and the path in them: `http://unix:/path` (nginx), `unix//path` (Caddy),
 * `unix@/path` (HAProxy), `unix:///path` (Docker, gRPC), `http+unix:///path` (some HTTP clients), and the path alone.
 */
const OTHER_SPELLINGS = /^(?:(?:(?:https?:\/\/|https?\+)?unix[:/@](?:\/\/)?(?=\/))|(?!\/\/))(\/[^:]*)/is

function pathProblem(path: string): string | null {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  if (/[\x00-\x1f\x7f]/.test(path)) return 'must not have control characters in its path'
  const behind = /:(\/.*)$/.exec(path)?.[1]
  if (behind !== undefined)
    return `must end with the path of the socket (behind it is "${behind}"); use the route's rewrite`
  const shortest = posix.normalize(path).replace(/\/$/, '')
  if (shortest === '') return 'must be the path of a Unix socket: "/" is a directory'
  if (shortest !== path) return `must have the shortest spelling of its path: write unix:${shortest}`
  const bytes = Buffer.byteLength(path)
  if (bytes > MAX_SOCKET_PATH_BYTES) {
    return `has a path of ${bytes} bytes: the system takes at most ${MAX_SOCKET_PATH_BYTES} (108 with the zero that ends it); use a shorter one, or a symbolic link`
  }
  return null
}

/** Of a text in which endpointProblem finds nothing. */
export function endpointAddress(text: string): EndpointAddress {
  if (text.startsWith('unix:'))
    return { origin: text, authority: 'localhost', hostname: 'localhost', socketPath: text.slice('unix:'.length) }
  const { origin, host, hostname } = new URL(text)
  return { origin, authority: host, hostname, socketPath: null }
}
