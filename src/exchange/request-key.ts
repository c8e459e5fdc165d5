// What stays the same over the requests of one caller, as a route or a service names it: its consumer, its address, a
// header or a cookie. Pure; runs per request where something is chosen by it.
import type { RequestKey } from '../config/route-table.js'
import type { Exchange } from './exchange.js'

/** What cuts the key out of a request; '' where the request has none. */
export function requestKeyReader(key: RequestKey): (exchange: Exchange) => string {
  switch (key.kind) {
    case 'consumer':
      return ({ consumer }) => consumer?.name ?? ''
    case 'address':
      return ({ clientAddress }) => clientAddress
    case 'header': {
      const { name } = key
      return (exchange) => exchange.header(name)
    }
    case 'cookie': {
      const { name } = key
      return (exchange) => cookieOf(exchange.header('cookie'), name)
    }
  }
}

/** The value of the first cookie of that name in a Cookie field, '' where there is none (RFC 6265, 4.2.1). */
export function cookieOf(cookies: string, name: string): string {
  for (let at = cookies.indexOf(name); at >= 0; at = cookies.indexOf(name, at + 1)) {
    const before = at === 0 ? ' ' : cookies[at - 1]
    const end = at + name.length
    if (cookies[end] !== '=' || (before !== ' ' && before !== ';')) continue
    const next = cookies.indexOf(';', end)
    return cookies.slice(end + 1, next < 0 ? undefined : next).trimEnd()
  }
  return ''
}
