// Which header fields belong to one connection, of requests and responses: by their names, or because Connection lists
// them. Pure; runs per request.
import type { NumberedName } from './fields.js'

/** RFC 9110, 7.6.1, and the older Keep-Alive and Proxy-Connection that are still sent. */
export const HOP_BY_HOP = [
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
] as const satisfies readonly NumberedName[]
const hopByHop: ReadonlySet<string> = new Set(HOP_BY_HOP)

/** What the Connection fields of a message list, in lower case. */
export type ConnectionOptions = ReadonlySet<string>

const NO_OPTIONS: ConnectionOptions = new Set()
const usualOptions = new Map(['', 'keep-alive', 'close'].map((value) => [value, optionsOf(value)]))

/**
 * The options that a message's Connection fields list (RFC 9110, 7.6.1): one value or several. Read it once for each
 * message: the list may be as long as the head, and every field is looked up in it.
 */
export function connectionOptions(value: string | readonly string[] | undefined): ConnectionOptions {
  if (value === undefined) return NO_OPTIONS
  const list = typeof value === 'string' ? value : value.join(',')
  return usualOptions.get(list) ?? optionsOf(list)
}

function optionsOf(list: string): ConnectionOptions {
  const options = new Set<string>()
  for (const item of list.toLowerCase().split(',')) {
    const option = item.trim()
    if (option !== '') options.add(option)
  }
  return options
}

/** Whether a field stays on this hop: by its name, or because Connection names it. `name` is lower case. */
export function isHopByHop(name: string, options: ConnectionOptions): boolean {
  return hopByHop.has(name) || options.has(name)
}
