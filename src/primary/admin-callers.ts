// Decides whether the admin listener accepts a request: it has no password, so web pages in a browser on this machine
// must be kept out. Looks at the request head only.
import type { IncomingMessage } from 'node:http'

export interface Refusal {
  readonly status: 403 | 421
  readonly title: string
  readonly detail: string
}

/**
 * Returns null if the request is accepted.
 * @param names the listener's names in lower case, besides localhost and the connection's local address
 */
export function refusalOf(req: IncomingMessage, names: ReadonlySet<string>): Refusal | null {
  const { host } = req.headers
  if (host !== undefined && !isOurs(host, req, names)) {
    const detail = `Host ${JSON.stringify(host)} is not a name of this listener: add it to TIDEGATE_ADMIN_NAMES`
    return { status: 421, title: 'Misdirected Request', detail }
  }
  if (req.method !== 'GET' && req.method !== 'HEAD' && isFromBrowser(req)) {
    return {
      status: 403,
      title: 'Forbidden',
      detail: 'a browser sent this request (Origin or Sec-Fetch-Site); send it with another client',
    }
  }
  return null
}

/**
 * A page can point its own host name at 127.0.0.1 after it was loaded (DNS rebinding), and then read this listener's
 * responses. The browser sends that name in Host. A request without Host is HTTP/1.0 and not from a browser.
 */
function isOurs(host: string, { socket }: IncomingMessage, names: ReadonlySet<string>): boolean {
  const name = hostName(host)
  // An IPv4 connection to an IPv6 socket has a mapped address.
  return name === 'localhost' || names.has(name) || name === socket.localAddress?.replace(/^::ffff:/, '')
}

/** Removes port, brackets and the trailing dot; lower case. An IPv6 address without brackets has no port. */
export function hostName(host: string): string {
  const [, address, name] = /^(?:\[([^\]]*)\]|([^:]*))(?::\d*)?$/.exec(host) ?? []
  return (address ?? name ?? host).toLowerCase().replace(/\.$/, '')
}

/**
 * Fetch (WHATWG): browsers send Origin (maybe `null`) with every request but GET and HEAD, and pages cannot prevent it.
 * curl sends none.
 */
function isFromBrowser({ headers }: IncomingMessage): boolean {
  return headers.origin !== undefined || headers['sec-fetch-site'] !== undefined
}
