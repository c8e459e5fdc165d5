// Identifies consumers by an RFC 9421 signature. Everything but the body is checked with the head, before the body is
// read: a signature covers a body only through Content-Digest (RFC 9530), which verify() compares. Runs per request.
// Only the log says what exactly was wrong.
//
// Of several signatures, the first with a known key counts, among those with the route's label and tag if it requires
// any.
import { type Dictionary, type InnerList, parseDictionary, serializeItem } from 'structured-headers'
import type { Route, RouteTable } from '../config/compile.js'
import type { HttpSignatureRules } from '../config/http-signature.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection, wrongCredentials } from '../exchange/outcome.js'
import { digestFits, hasDigest, isDigest } from './content-digest.js'
import type { DigestPool } from './digest-pool.js'
import { VerificationKey } from './http-signature-key.js'
import { isInnerList, type Scheme, signatureBase, valuesOf } from './signature-base.js'
import type { Strategy } from './strategy.js'

const unauthorized = (reason: string): Rejection => new Rejection('unauthorized', reason)
const noSignature = unauthorized('signature or signature-input missing')
const malformed = unauthorized('signature or signature-input malformed')
const unknownKey = wrongCredentials('no signature with a known keyid')
const otherAlgorithm = unauthorized("alg differs from the key's")
const noCreated = unauthorized('signature without created')
const tooOld = unauthorized('signature older than maxAge')
const notYet = unauthorized('signature created in the future')
const expired = unauthorized('signature expired')
const badParameters = unauthorized('signature parameters of the wrong type')
const noMethod = unauthorized('signature does not cover @method')
const noTarget = unauthorized('signature does not cover the whole target')
const noBody = unauthorized('signature does not cover the content-digest of the body')
const noDigest = unauthorized('content-digest without sha-256 or sha-512')
const badSignature = wrongCredentials('signature does not match')
const badDigest = unauthorized('content-digest does not match the body')

export class SignedMessage implements Strategy {
  /** All consumers' keys, by keyid. */
  private readonly keys = new Map<string, VerificationKey>()
  private readonly pool: DigestPool
  private readonly offloadBytes: number

  /** The pool hashes bodies of at least `offloadBytes`. */
  constructor(table: RouteTable, pool: DigestPool, offloadBytes: number) {
    for (const consumer of table.consumers) {
      for (const key of consumer.httpSignatureKeys) this.keys.set(key.id, new VerificationKey(consumer, key))
    }
    this.pool = pool
    this.offloadBytes = offloadBytes
  }

  presents(exchange: Exchange): boolean {
    return exchange.header('signature-input') !== '' || exchange.header('signature') !== ''
  }

  /** Returns the first keyid in Signature-Input. */
  claims(exchange: Exchange): string {
    for (const [, input] of dictionary(exchange, 'signature-input') ?? []) {
      const keyid = input[1].get('keyid')
      if (typeof keyid === 'string') return keyid
    }
    return ''
  }

  identify(exchange: Exchange): Rejection | null {
    const rules = (exchange.route as Route).httpSignature as HttpSignatureRules
    const inputs = dictionary(exchange, 'signature-input')
    const signatures = dictionary(exchange, 'signature')
    if (inputs === null || signatures === null) return malformed
    if (inputs.size === 0 || signatures.size === 0) return noSignature
    for (const [label, input] of inputs) {
      if (!isInnerList(input) || (rules.label !== null && rules.label !== label)) continue
      if (rules.tag !== null && input[1].get('tag') !== rules.tag) continue
      const keyid = input[1].get('keyid')
      const key = typeof keyid === 'string' ? this.keys.get(keyid) : undefined
      if (key === undefined) continue
      const signature = signatures.get(label)?.[0]
      if (!(signature instanceof ArrayBuffer)) return malformed
      return (
        checkTimes(exchange, rules, input) ??
        checkCoverage(exchange, rules, input) ??
        check(exchange, key, input, signature)
      )
    }
    return unknownKey
  }

  needsBody(exchange: Exchange): boolean {
    return exchange.digestCovered && exchange.contentLength !== 0
  }

  takesTime(exchange: Exchange): boolean {
    return exchange.digestCovered && exchange.body !== null && exchange.body.length >= this.offloadBytes
  }

  verify(exchange: Exchange): Rejection | null {
    if (!exchange.digestCovered || digestFits(contentDigest(exchange), exchange.body)) return null
    return badDigest
  }

  verifyLater(exchange: Exchange, done: (exchange: Exchange, rejection: Rejection | null) => void): void {
    this.pool.check(exchange, { contentDigest: contentDigest(exchange), body: exchange.body }, badDigest, done)
  }
}

function contentDigest(exchange: Exchange): string {
  return valuesOf(exchange.headers, 'content-digest').join(', ')
}

/** Empty if the header is missing. */
function dictionary(exchange: Exchange, name: string): Dictionary | null {
  try {
    return parseDictionary(valuesOf(exchange.headers, name).join(', '))
  } catch {
    return null
  }
}

/** RFC 9421, 2.3 and 3.2. Records until when the signature is acceptable. */
function checkTimes(exchange: Exchange, rules: HttpSignatureRules, [, parameters]: InnerList): Rejection | null {
  const created = parameters.get('created')
  const expires = parameters.get('expires') ?? Number.MAX_SAFE_INTEGER
  if (created === undefined) return noCreated
  if (!isInteger(created) || !isInteger(expires)) return badParameters
  // Compared with the wall clock, the only clock that clients know.
  const nowSeconds = Math.floor(Date.now() / 1000)
  if (created > nowSeconds + rules.leewaySeconds) return notYet
  if (created < nowSeconds - rules.maxAgeSeconds) return tooOld
  if (expires < nowSeconds) return expired
  exchange.signatureUntilSeconds = Math.min(created + rules.maxAgeSeconds, expires) + 1
  return null
}

function isInteger(value: unknown): value is number {
  return Number.isInteger(value)
}

/** Whether the signature covers what the route requires. It may cover more, and that must be right as well. */
function checkCoverage(exchange: Exchange, rules: HttpSignatureRules, [components]: InnerList): Rejection | null {
  const covered = new Set<string>()
  for (const component of components) {
    covered.add(serializeItem(component))
    // If only one member of the header is covered, it must be a digest that the gateway checks.
    const [name, parameters] = component
    if (name === 'content-digest' && (!parameters.has('key') || isDigest(parameters.get('key'))))
      exchange.digestCovered = rules.signBody
  }
  if (rules.components === null) {
    if (!covered.has('"@method"')) return noMethod
    if (!coversTarget(covered, exchange.hasQuery)) return noTarget
  } else {
    for (const required of rules.components) {
      // RFC 9530, 2: a request without content needs no digest.
      if (required === '"content-digest"' && (exchange.contentLength === 0 || exchange.digestCovered)) continue
      if (!covered.has(required)) return unauthorized(`signature does not cover ${required}`)
    }
  }
  if (exchange.contentLength !== 0 && rules.signBody && !exchange.digestCovered) return noBody
  return exchange.digestCovered && !hasDigest(contentDigest(exchange)) ? noDigest : null
}

/** Whether the target is covered, in one of the forms of RFC 9421, 2.2. */
function coversTarget(covered: ReadonlySet<string>, hasQuery: boolean): boolean {
  if (covered.has('"@target-uri"')) return true
  if (!covered.has('"@authority"')) return false
  return covered.has('"@request-target"') || (covered.has('"@path"') && (!hasQuery || covered.has('"@query"')))
}

function check(exchange: Exchange, key: VerificationKey, input: InnerList, signature: ArrayBuffer): Rejection | null {
  const named = input[1].get('alg')
  if (named !== undefined && named !== key.algorithm) return otherAlgorithm
  const base = signatureBase(exchange, schemeOf(exchange), input)
  if (base instanceof Rejection) return base
  if (!key.verify(base, Buffer.from(signature))) return badSignature
  exchange.consumer = key.consumer
  // Not the signature itself: anyone who sees an ECDSA signature can make a second valid one.
  exchange.signature = base
  return null
}

/** The scheme that the client used, if a trusted proxy says so: the last entry is the proxy's own. */
function schemeOf(exchange: Exchange): Scheme {
  if (exchange.secure) return 'https'
  return exchange.peerTrusted && /(^|[, \t])https$/i.test(exchange.fields.list('x-forwarded-proto')) ? 'https' : 'http'
}
