// The request's head as it goes upstream: request line and fields as one string, a character a byte. Pure; runs per
// request. Refuses whatever would let one request look like two to the upstream (RFC 9112, 11.2), however it came to be
// in a name or a value.
import type { Dispatcher } from 'undici'
import { TOKEN } from '../../config/patterns.js'
import { FieldLines } from '../field-lines.js'
import { errors } from '../undici.js'

/** What a field name means to the head. All other known names are PLAIN. */
const PLAIN = 1
const CONTENT_LENGTH = 2
const HOST = 3
const CONNECTION = 4
const REFUSED = 5

/** Names seen so far, so that a name is checked once and not per request. Capped: callers choose names. */
const names = new Map<string, number>([
  ['content-length', CONTENT_LENGTH],
  ['host', HOST],
  ['connection', CONNECTION],
  ['transfer-encoding', REFUSED],
  ['keep-alive', REFUSED],
  ['upgrade', REFUSED],
  ['expect', REFUSED],
])
const MAX_NAMES = 1000

const NOT_IN_PATH = /[^\u0021-\u00ff]/
/**
 * Written as latin1 they would become other characters, CR and LF among them. V8 answers at once for a string of bytes.
 */
const NOT_A_BYTE = /[\u0100-\uffff]/

/** RFC 9110, 8.6: with these, "no body" is said as Content-Length: 0. */
const expectsBody = new Set(['POST', 'PUT', 'PATCH', 'QUERY', 'PROPFIND', 'PROPPATCH'])
const knownMethods = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'TRACE', ...expectsBody])

export const NO_BODY = -2
export const CHUNKED = -1

export class RequestHead {
  /** Complete up to the empty line. */
  text = ''
  /** Bytes of the body to come; NO_BODY, or CHUNKED where the length is not known. */
  bodyLength = NO_BODY
  /** The connection ends with this exchange. */
  close = false
}

function kindOf(name: string): number {
  const known = names.get(name)
  if (known !== undefined) return known
  const lower = name.toLowerCase()
  const kind = names.get(lower) ?? (TOKEN.test(lower) ? PLAIN : 0)
  if (kind !== 0 && names.size < MAX_NAMES) names.set(name, kind)
  return kind
}

/** What the fields of a request say, and how they are written. */
class FieldText {
  text = ''
  contentLength = -1
  close = false
}

/** Fields as undici takes them, each of which may be anything. */
function fieldText(headers: readonly unknown[], hostLine: string): FieldText {
  const out = new FieldText()
  let host = ''
  let values = ''
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i]
    const value = headers[i + 1]
    if (typeof name !== 'string' || typeof value !== 'string') throw new errors.InvalidArgumentError('invalid header')
    values += value
    switch (kindOf(name)) {
      case PLAIN:
        out.text += `${name}: ${value}\r\n`
        break
      case CONTENT_LENGTH:
        if (out.contentLength >= 0 || !/^[0-9]{1,15}$/.test(value))
          throw new errors.InvalidArgumentError('invalid content-length header')
        out.contentLength = Number(value)
        break
      case HOST:
        if (host !== '') throw new errors.InvalidArgumentError('duplicate host header')
        host = `host: ${value}\r\n`
        break
      case CONNECTION:
        if (value.toLowerCase() === 'close') out.close = true
        else if (value.toLowerCase() !== 'keep-alive')
          throw new errors.InvalidArgumentError('invalid connection header')
        break
      default:
        if (name.toLowerCase() === 'expect') throw new errors.NotSupportedError('expect header not supported')
        throw new errors.InvalidArgumentError(`invalid header ${JSON.stringify(name)}`)
    }
  }
  // One look over all values: three memchr and a check of the string's own width.
  if (values.includes('\n') || values.includes('\r') || values.includes('\0') || NOT_A_BYTE.test(values)) {
    throw new errors.InvalidArgumentError('invalid header value')
  }
  out.text = (host === '' ? hostLine : host) + out.text
  return out
}

/**
 * `bodyBytes` is the length of a body in memory, 0 for none, -1 for a stream. Throws what undici would:
 * InvalidArgumentError, NotSupportedError, RequestContentLengthMismatchError.
 */
export function renderHead(options: Dispatcher.DispatchOptions, hostLine: string, bodyBytes: number): RequestHead {
  const { method, path, headers } = options
  if (options.upgrade || method === 'CONNECT') throw new errors.NotSupportedError('upgrades are not for this client')
  if (typeof path !== 'string' || path.charCodeAt(0) !== 0x2f || NOT_IN_PATH.test(path)) {
    throw new errors.InvalidArgumentError('invalid request path')
  }
  if (!knownMethods.has(method) && (typeof method !== 'string' || !TOKEN.test(method))) {
    throw new errors.InvalidArgumentError('invalid request method')
  }
  const head = new RequestHead()
  let fields: FieldLines | FieldText
  if (headers instanceof FieldLines) fields = headers
  else if (Array.isArray(headers ?? [])) {
    const given = fieldText((headers ?? []) as unknown[], hostLine)
    head.close = given.close
    fields = given
  } else throw new errors.InvalidArgumentError('headers must be a flat array')
  if (options.reset === true) head.close = true
  const declared = fields.contentLength
  let text = `${method} ${path} HTTP/1.1\r\n${fields.text}`
  if (head.close) text += 'connection: close\r\n'
  if (bodyBytes > 0) {
    if (declared >= 0 && declared !== bodyBytes) throw new errors.RequestContentLengthMismatchError()
    head.bodyLength = bodyBytes
    text += `content-length: ${bodyBytes}\r\n`
  } else if (bodyBytes < 0) {
    head.bodyLength = declared >= 0 ? declared : CHUNKED
    text += declared >= 0 ? `content-length: ${declared}\r\n` : 'transfer-encoding: chunked\r\n'
  } else {
    if (declared > 0) throw new errors.RequestContentLengthMismatchError()
    if (expectsBody.has(method)) text += 'content-length: 0\r\n'
  }
  head.text = `${text}\r\n`
  return head
}
