// Identifies consumers by x-source, x-time and x-m: identify() checks the head before a body is read; verify() checks
// the signature over the request. Runs per request. Only the log says what exactly was wrong, never the response.
import type { RouteTable } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection, wrongCredentials } from '../exchange/outcome.js'
import type { DigestPool } from './digest-pool.js'
import { signedBodyHash, Verifier } from './signature.js'
import { type Strategy, soleHeader } from './strategy.js'

const several = new Rejection('unauthorized', 'several x-source, x-time or x-m fields')
const noSource = new Rejection('unauthorized', 'x-source missing')
const noTime = new Rejection('unauthorized', 'x-time missing or not Unix seconds')
const noMac = new Rejection('unauthorized', 'x-m missing')
const unknownSource = wrongCredentials('x-source unknown')
const stale = new Rejection('unauthorized', 'x-time outside the allowed skew')
const badSignature = wrongCredentials('x-m does not match')

export class SignedByXm implements Strategy {
  private readonly table: RouteTable
  private readonly verifiers: readonly Verifier[]
  private readonly pool: DigestPool
  private readonly offloadBytes: number

  /** The pool checks bodies of at least `offloadBytes`; with 0, every signature. */
  constructor(table: RouteTable, pool: DigestPool, offloadBytes: number) {
    this.table = table
    this.verifiers = table.consumers.map((consumer) => new Verifier(consumer))
    this.pool = pool
    this.offloadBytes = offloadBytes
  }

  presents(exchange: Exchange): boolean {
    return exchange.header('x-m') !== '' || exchange.header('x-source') !== ''
  }

  claims(exchange: Exchange): string {
    return exchange.header('x-source')
  }

  /** Finds the consumer; checks everything but the signature itself. */
  identify(exchange: Exchange): Rejection | null {
    const source = soleHeader(exchange, 'x-source')
    const time = soleHeader(exchange, 'x-time')
    const mac = soleHeader(exchange, 'x-m')
    if (source === null || time === null || mac === null) return several
    if (source === '') return noSource
    const consumer = this.table.consumersByName.get(source)
    if (consumer === undefined) return unknownSource
    if (!/^[0-9]{1,12}$/.test(time)) return noTime
    if (mac === '') return noMac
    // Compared with the wall clock, the only clock that clients know. The segment's clock does not follow its steps.
    const age = Math.floor(Date.now() / 1000) - Number(time)
    if (age > exchange.route!.maxSkewSeconds || -age > exchange.route!.maxLeadSeconds) return stale
    exchange.consumer = consumer
    exchange.signature = mac
    exchange.signatureUntilSeconds = Number(time) + exchange.route!.maxSkewSeconds + 1
    return null
  }

  needsBody(exchange: Exchange): boolean {
    // Everything that `signs: legacy` covers is in the head.
    return exchange.route!.signBody && exchange.contentLength !== 0 && exchange.consumer!.signs !== 'legacy'
  }

  /** Whether this check is worth a thread. */
  takesTime(exchange: Exchange): boolean {
    return (exchange.body === null ? 0 : exchange.body.length) >= this.offloadBytes
  }

  verify(exchange: Exchange): Rejection | null {
    const fits = this.verifiers[exchange.consumer!.index]!.verify(
      exchange.header('x-time'),
      exchange.method,
      signedTarget(exchange),
      signedBodyHash(exchange.route!.signBody, exchange.body),
      exchange.header('x-m'),
    )
    return fits ? null : badSignature
  }

  /** The same in the digest pool. */
  verifyLater(exchange: Exchange, done: (exchange: Exchange, rejection: Rejection | null) => void): void {
    const task = {
      consumer: exchange.consumer!.index,
      time: exchange.header('x-time'),
      method: exchange.method,
      target: signedTarget(exchange),
      signBody: exchange.route!.signBody,
      mac: exchange.header('x-m'),
      body: exchange.body,
    }
    this.pool.check(exchange, task, badSignature, done)
  }
}

/** Path and query as the client sent them. `/path?` has an empty query, which is signed as sent. */
function signedTarget(exchange: Exchange): string {
  return exchange.hasQuery ? `${exchange.path}?${exchange.query}` : exchange.path
}
