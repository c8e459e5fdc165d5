// Builds the signature base of RFC 9421: one line per covered component. Pure; runs per request with such a signature.
// Tests hold it to the RFC's own examples. Knows no keys and no policy.
//
// Refused rather than guessed: components that a request does not have (@status, `req`) or that uWebSockets.js does not
// pass on (`tr`, trailers), `sf` on a field of unknown structure, and undefined parameters.
import {
  type Dictionary,
  type InnerList,
  type Item,
  parseDictionary,
  parseItem,
  parseList,
  serializeDictionary,
  serializeInnerList,
  serializeItem,
  serializeList,
} from 'structured-headers'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'

export type SignedRequest = Pick<Exchange, 'method' | 'path' | 'query' | 'hasQuery' | 'headers'>
export type Scheme = 'http' | 'https'

/** The type of each request field that is defined as a structured field: only those may have `sf` (RFC 9421, 2.1.1). */
const STRUCTURES: Readonly<Record<string, 'dictionary' | 'list' | 'item'>> = {
  'accept-signature': 'dictionary',
  'content-digest': 'dictionary',
  priority: 'dictionary',
  'repr-digest': 'dictionary',
  signature: 'dictionary',
  'signature-input': 'dictionary',
  'want-content-digest': 'dictionary',
  'want-repr-digest': 'dictionary',
  'client-cert-chain': 'list',
  'client-cert': 'item',
  'idempotency-key': 'item',
}

/**
 * Most components. Each is searched in the whole head, and anyone who knows a keyid can ask for it. Real signatures
 * cover far fewer.
 */
const MAX_COMPONENTS = 64
const tooMany = new Rejection('unauthorized', `signature covers more than ${MAX_COMPONENTS} components`)

/** RFC 9421, 2.5. @param input a member of Signature-Input: the covered components and the parameters */
export function signatureBase(request: SignedRequest, scheme: Scheme, input: InnerList): string | Rejection {
  if (input[0].length > MAX_COMPONENTS) return tooMany
  const components = new Components(request, scheme)
  const seen = new Set<string>()
  let base = ''
  for (const component of input[0]) {
    const identifier = serializeItem(component)
    if (seen.has(identifier)) return refused(identifier, 'twice')
    seen.add(identifier)
    const value = components.value(component)
    if (value === null) return refused(identifier, 'not in the request, or not to be read')
    base += `${identifier}: ${value}\n`
  }
  return `${base}"@signature-params": ${serializeInnerList(input)}`
}

function refused(identifier: string, why: string): Rejection {
  return new Rejection('unauthorized', `signature covers ${identifier.slice(0, 128)}: ${why}`)
}

/** The component values of one request. Long texts are parsed once, however many components need a part of them. */
class Components {
  private readonly request: SignedRequest
  private readonly scheme: Scheme
  /** Query parameters by name; the value is null if a name occurs more than once. */
  private query: Map<string, string | null> | null = null
  private readonly dictionaries = new Map<string, Dictionary>()

  constructor(request: SignedRequest, scheme: Scheme) {
    this.request = request
    this.scheme = scheme
  }

  /** Null if the request has no such component, or an ambiguous one. */
  value([name, parameters]: Item): string | null {
    if (typeof name !== 'string') return null
    if (name === '@query-param') return this.queryParameter(parameters)
    if (name.startsWith('@')) return parameters.size === 0 ? derived(this.request, this.scheme, name) : null
    return this.field(name, parameters)
  }

  /** RFC 9421, 2.2.8: name and value are decoded and encoded again, so that the client's spelling does not matter. */
  private queryParameter(parameters: Item[1]): string | null {
    const encoded = parameters.get('name')
    if (parameters.size !== 1 || typeof encoded !== 'string') return null
    const name = formDecoded(encoded)
    if (name === null) return null
    this.query ??= parametersOf(this.request.query)
    const value = this.query.get(name) ?? null
    // Several values are ambiguous; and all invalid UTF-8 would be signed as the same character.
    return value === null || value.includes('\ufffd') ? null : formEncoded(value)
  }

  /** RFC 9421, 2.1. */
  private field(name: string, parameters: Item[1]): string | null {
    const values = valuesOf(this.request.headers, name)
    if (values.length === 0) return null
    const combined = values.join(', ')
    if (parameters.size === 0) return combined
    if (parameters.size > 1) return null
    try {
      if (parameters.get('bs') === true) {
        return values.map((value) => `:${Buffer.from(value, 'latin1').toString('base64')}:`).join(', ')
      }
      if (parameters.get('sf') === true) return strict(name, combined)
      const key = parameters.get('key')
      return typeof key === 'string' ? this.member(name, combined, key) : null
    } catch {
      // The field does not have the structure that the signature claims.
      return null
    }
  }

  private member(name: string, text: string, key: string): string | null {
    let dictionary = this.dictionaries.get(name)
    if (dictionary === undefined) {
      dictionary = parseDictionary(text)
      this.dictionaries.set(name, dictionary)
    }
    const value = dictionary.get(key)
    if (value === undefined) return null
    return isInnerList(value) ? serializeInnerList(value) : serializeItem(value)
  }
}

/** RFC 9421, 2.2. */
function derived(request: SignedRequest, scheme: Scheme, name: string): string | null {
  const { method, path, query, hasQuery } = request
  const target = hasQuery ? `${path}?${query}` : path
  switch (name) {
    case '@method':
      return method
    case '@target-uri':
      return `${scheme}://${authority(request, scheme)}${target}`
    case '@authority':
      return authority(request, scheme)
    case '@scheme':
      return scheme
    case '@request-target':
      return target
    case '@path':
      return path
    case '@query':
      return `?${query}`
    default:
      return null
  }
}

/** RFC 9421, 2.2.3: lower case, without the scheme's own port. */
function authority({ headers }: SignedRequest, scheme: Scheme): string {
  const host = (valuesOf(headers, 'host')[0] ?? '').toLowerCase()
  return host.replace(scheme === 'https' ? /:(443)?$/ : /:(80)?$/, '')
}

function parametersOf(query: string): Map<string, string | null> {
  const parameters = new Map<string, string | null>()
  for (const [name, value] of new URLSearchParams(query)) parameters.set(name, parameters.has(name) ? null : value)
  return parameters
}

/** Null if formEncoded could not have produced this text. */
function formDecoded(encoded: string): string | null {
  try {
    const text = decodeURIComponent(encoded)
    return formEncoded(text) === encoded && !text.includes('\ufffd') ? text : null
  } catch {
    return null
  }
}

function formEncoded(text: string): string {
  return encodeURIComponent(text).replace(/[!'()~]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
}

function strict(name: string, value: string): string | null {
  switch (STRUCTURES[name]) {
    case 'dictionary':
      return serializeDictionary(parseDictionary(value))
    case 'list':
      return serializeList(parseList(value))
    case 'item':
      return serializeItem(parseItem(value))
    default:
      return null
  }
}

export function isInnerList(member: Item | InnerList): member is InnerList {
  return Array.isArray(member[0])
}

/** All values of a field in order of arrival, trimmed. `name` is lower case. */
export function valuesOf(headers: readonly string[], name: string): string[] {
  const values: string[] = []
  for (let i = 0; i < headers.length; i += 2)
    if (headers[i] === name) values.push(withoutBlanks(headers[i + 1] as string))
  return values
}

/** Avoids a regular expression: one for trailing blanks reads a run of n inner blanks n times. */
function withoutBlanks(value: string): string {
  let from = 0
  let to = value.length
  while (from < to && isBlank(value.charCodeAt(from))) from++
  while (to > from && isBlank(value.charCodeAt(to - 1))) to--
  return value.substring(from, to)
}

function isBlank(code: number): boolean {
  return code === 0x20 || code === 0x09
}
