// What an RFC 9421 signature is over: the lines made of the components it covers. Pure; runs per request with such a signature, and is held
// to the RFC's own examples by tests. Knows no keys and no policy.
//
// Refused rather than guessed: what a request does not have (@status, `req`), what uWebSockets.js does not hand over (`tr`, trailers), `sf`
// on a field whose structure is not known here, and parameters that nobody has defined.
import {
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
import type { Exchange } from '../ingress/exchange.js'
import { Rejection } from '../outcome.js'

export type SignedRequest = Pick<Exchange, 'method' | 'path' | 'query' | 'hasQuery' | 'headers'>
export type Scheme = 'http' | 'https'

/** Structure of the request fields that are structured by their definition: what `sf` may stand behind (RFC 9421, 2.1.1). */
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

/** RFC 9421, 2.5. @param input a member of Signature-Input: the covered components and the parameters */
export function signatureBase(request: SignedRequest, scheme: Scheme, input: InnerList): string | Rejection {
  const seen = new Set<string>()
  let base = ''
  for (const component of input[0]) {
    const identifier = serializeItem(component)
    if (seen.has(identifier)) return refused(identifier, 'twice')
    seen.add(identifier)
    const value = componentValue(request, scheme, component)
    if (value === null) return refused(identifier, 'not in the request, or not to be read')
    base += `${identifier}: ${value}\n`
  }
  return `${base}"@signature-params": ${serializeInnerList(input)}`
}

function refused(identifier: string, why: string): Rejection {
  return new Rejection('unauthorized', `signature covers ${identifier.slice(0, 128)}: ${why}`)
}

/** Null: the request has no such component, or one that cannot be told for certain. */
function componentValue(request: SignedRequest, scheme: Scheme, [name, parameters]: Item): string | null {
  if (typeof name !== 'string') return null
  if (name === '@query-param') {
    const parameter = parameters.get('name')
    return parameters.size === 1 && typeof parameter === 'string' ? queryParameter(request.query, parameter) : null
  }
  if (name.startsWith('@')) return parameters.size === 0 ? derived(request, scheme, name) : null
  return field(request.headers, name, parameters)
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

/** RFC 9421, 2.2.8: name and value decoded and encoded again, so that how the caller spelled them does not matter. */
function queryParameter(query: string, name: string): string | null {
  const values: string[] = []
  for (const [key, value] of new URLSearchParams(query)) if (formEncoded(key) === name) values.push(value)
  const value = values[0]
  // Of several none is certain; and bytes that are no UTF-8 would all be signed as the same character.
  if (value === undefined || values.length > 1 || value.includes('\ufffd') || name.includes('%EF%BF%BD')) return null
  return formEncoded(value)
}

function formEncoded(text: string): string {
  return encodeURIComponent(text).replace(/[!'()~]/g, (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`)
}

/** RFC 9421, 2.1. */
function field(headers: readonly string[], name: string, parameters: Item[1]): string | null {
  const values = valuesOf(headers, name)
  if (values.length === 0) return null
  const combined = values.join(', ')
  if (parameters.size === 0) return combined
  if (parameters.size > 1) return null
  try {
    if (parameters.get('bs') === true) {
      return values.map((value) => `:${Buffer.from(value, 'utf8').toString('base64')}:`).join(', ')
    }
    if (parameters.get('sf') === true) return strict(name, combined)
    const key = parameters.get('key')
    return typeof key === 'string' ? member(combined, key) : null
  } catch {
    // Not the structure that the signature says it has.
    return null
  }
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

function member(dictionary: string, key: string): string | null {
  const value = parseDictionary(dictionary).get(key)
  if (value === undefined) return null
  return isInnerList(value) ? serializeInnerList(value) : serializeItem(value)
}

export function isInnerList(member: Item | InnerList): member is InnerList {
  return Array.isArray(member[0])
}

/** All values of a field, in the order in which they came, without the blanks around them. `name` is lower case. */
export function valuesOf(headers: readonly string[], name: string): string[] {
  const values: string[] = []
  for (let i = 0; i < headers.length; i += 2)
    if (headers[i] === name) values.push((headers[i + 1] as string).replace(/^[ \t]+|[ \t]+$/g, ''))
  return values
}
