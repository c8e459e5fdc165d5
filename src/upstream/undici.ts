// The only place that loads undici, in the parts that are needed: its index brings fetch, WebSocket and caches along,
// 60 ms of a worker's start and 17 MiB of its memory. And the only one that reaches into it: its response parser lets
// pass what the lean client refuses, and refuses a 100 Continue. Both clients are to treat a response alike.
import { createRequire } from 'node:module'
import type { Socket } from 'node:net'
import type * as Undici from 'undici'

const require = createRequire(import.meta.url)

export const errors = require('undici/lib/core/errors.js') as typeof Undici.errors
export const Dispatcher = require('undici/lib/dispatcher/dispatcher.js') as typeof Undici.Dispatcher

type Connector = ReturnType<typeof Undici.buildConnector>

/** What undici's pools use of their own accord, for one that is to be told more. */
export function createConnector(options: Undici.buildConnector.BuildOptions): Connector {
  return (require('undici/lib/core/connect.js') as typeof Undici.buildConnector)(options)
}

/** Loaded with the first one: where all services are spoken to by the lean client it never is. */
export function createPool(
  origin: string,
  options: Undici.Pool.Options & { readonly connect: Connector },
): Undici.Pool {
  const Pool = require('undici/lib/dispatcher/pool.js') as typeof Undici.Pool
  const connect: Connector = (to, callback) =>
    options.connect(to, (...result) => {
      // Its types say null: after an error there is no second argument at all.
      const socket = result[1] as Socket | null | undefined
      if (socket) mendParserOf(socket)
      callback(...result)
    })
  return new Pool(origin, { ...options, connect })
}

/** What is used here of the class Parser in undici/lib/dispatcher/client-h1.js. */
interface Parser {
  readonly socket: Socket
  readonly llhttp: Readonly<Record<'llhttp_get_http_major' | 'llhttp_get_http_minor', (parser: number) => number>>
  readonly ptr: number
  /** name, value, name, value … of the head so far. */
  readonly headers: readonly Buffer[]
  statusText: string
  onStatus(bytes: Buffer): number
  onHeadersComplete(status: number, upgrade: boolean, shouldKeepAlive: boolean): number
}

let mended = false

/** Before undici makes a parser for the connection. The class is not exported: the first parser leads to it. */
function mendParserOf(socket: Socket): void {
  if (mended) return
  const { kParser } = require('undici/lib/core/symbols.js') as { readonly kParser: symbol }
  Object.defineProperty(socket, kParser, {
    configurable: true,
    set(parser: Parser) {
      Object.defineProperty(socket, kParser, { value: parser, writable: true, configurable: true })
      if (!mended) mend(Object.getPrototypeOf(parser) as Parser)
      mended = true
    },
  })
}

function mend(prototype: Parser): void {
  const { onHeadersComplete } = prototype

  // It may come in pieces, and it is bytes: undici reads UTF-8, of which some becomes characters that would leave as a
  // line feed.
  prototype.onStatus = function onStatus(bytes) {
    this.statusText += bytes.latin1Slice()
    return 0
  }

  prototype.onHeadersComplete = function complete(status, upgrade, shouldKeepAlive) {
    const fault = faultOf(this, status)
    if (fault !== null) {
      this.socket.destroy(fault)
      return -1
    }
    // RFC 9110, 15.2: any number of interim responses may come, asked for or not. undici passes on all but 100;
    // attempt.ts drops them.
    return onHeadersComplete.call(this, status === 100 ? 102 : status, upgrade, shouldKeepAlive)
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
const CONTROL = /[\x00-\x08\x0a-\x1f\x7f]/

function faultOf({ llhttp, ptr, statusText, headers }: Parser, status: number): Error | null {
  const minor = llhttp.llhttp_get_http_minor(ptr)
  if (llhttp.llhttp_get_http_major(ptr) !== 1 || minor > 1)
    return parserError('unknown HTTP version', 'INVALID_VERSION')
  // Nobody has asked for one: undici itself misses those that do not name what they change to.
  if (status === 101) return new errors.SocketError('bad upgrade')
  if (status < 100) return parserError('invalid status', 'INVALID_STATUS')
  if (CONTROL.test(statusText)) return parserError('control character in the head', 'INVALID_HEADER_TOKEN')
  let codings = 0
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i]!.length !== 17 || headers[i]!.latin1Slice().toLowerCase() !== 'transfer-encoding') continue
    // RFC 9112, 6.1: another coding cannot be passed on as if it were none, and HTTP/1.0 has none at all. 7.1: chunked
    // is applied once.
    if (minor === 0 || ++codings > 1 || headers[i + 1]!.latin1Slice().trim().toLowerCase() !== 'chunked')
      return parserError('unknown transfer coding', 'INVALID_TRANSFER_ENCODING')
  }
  return null
}

/** With a code like llhttp's, as undici's own have it. */
export function parserError(message: string, code: string): Error {
  return Object.assign(new errors.HTTPParserError(message), { code: `HPE_${code}` })
}
