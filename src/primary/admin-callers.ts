// Whom the admin listener answers: it has no password, so that a web page in a browser on this machine must not get at it. Decides by the request
// head alone, and knows no page.
import type { IncomingMessage } from 'node:http'

export interface Refusal {
  readonly status: 403 | 421
  readonly title: string
  readonly detail: string
}

/**
 * Null where the request is answered.
 * @param names the listener goes by, in lower case, besides localhost and the address that the connection came to
 */
export function refusalOf(req: IncomingMessage, names: ReadonlySet<string>): Refusal | null {
  const { host } = req.headers
  if (host !== undefined && !isOurs(host, req, names)) {
    const detail = `this listener does not go by ${JSON.stringify(host)}: name it in TIDEGATE_ADMIN_NAMES`
    return { status: 421, title: 'Misdirected Request', detail }
  }
  if (req.method !== 'GET' && req.method !== 'HEAD' && isFromBrowser(req)) {
    return { status: 403, title: 'Forbidden', detail: 'not from a browser' }
  }
  return null
}

/**
 * A page can have its own host name point at 127.0.0.1 once it is loaded (DNS rebinding), and then reads what is there as its own. The browser sends
 * that name in Host. Without Host the request is HTTP/1.0, and no browser's.
 */
function isOurs(host: string, { socket }: IncomingMessage, names: ReadonlySet<string>): boolean {
  const name = hostName(host)
  // An IPv4 connection to an IPv6 socket has a mapped address.
  return name === 'localhost' || names.has(name) || name === socket.localAddress?.replace(/^::ffff:/, '')
}

/** Without port, brackets and the dot at the end, in lower case. An IPv6 address without brackets has no port. */
export function hostName(host: string): string {
  const [, address, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host) ?? []
  return (address ?? name ?? host).toLowerCase().replace(/\.$/, '')
}

/** Fetch (WHATWG): browsers send Origin with every request but GET and HEAD, be it `null`, and no page can keep them from it. curl does not. */
function isFromBrowser({ headers }: IncomingMessage): boolean {
  return headers.origin !== undefined || headers['sec-fetch-site'] !== undefined
}
