// Identifies consumers by a JSON Web Token (RFC 7519, RFC 6750). Runs per request. A token is verified once, in a later
// turn of the event loop; until it expires it is then known by its SHA-256, so that a repeated token costs no signature
// check. A token's claims count only after that.
import { hash } from 'node:crypto'
import type { Consumer, Issuer, RouteTable } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { Claims, TokenCheck } from './jwt-check.js'
import type { KeysListener } from './jwt-keys.js'
import { type Strategy, soleHeader } from './strategy.js'

const missing = new Rejection('unauthorized', 'Authorization: Bearer missing')
const several = new Rejection('unauthorized', 'several Authorization fields')
const malformed = new Rejection('unauthorized', 'token malformed')
const noConsumer = new Rejection('unauthorized', 'token names no consumer')
const unlisted = new Rejection('unauthorized', 'token of an unknown consumer')
const busy = new Rejection('overloaded', 'token queue full')

/** Tokens remembered, per worker: 10,000 take some 5 MB. */
const MOST_REMEMBERED = 10_000
/** Longest time for which a token stays accepted after its issuer withdraws the key. */
const MOST_REMEMBERED_SECONDS = 600
/** Most checks under way at once; an issuer may be slow with its keys. */
const MOST_CHECKS = 1000

type Done = (exchange: Exchange, rejection: Rejection | null) => void

interface Known {
  readonly consumer: Consumer
  /** Unix seconds. */
  readonly until: number
}

export class KnownByToken implements Strategy {
  /** Loads jose, which costs a worker 60 ms and some megabytes: only if there are issuers. */
  private readonly tokens: Promise<TokenCheck> | null
  private readonly remembered = new Map<string, Known>()
  private checks = 0

  constructor(table: Pick<RouteTable, 'issuers'>, onKeys: KeysListener) {
    const { issuers } = table
    this.tokens =
      issuers.length === 0 ? null : import('./jwt-check.js').then(({ TokenCheck }) => new TokenCheck(issuers, onKeys))
  }

  presents(exchange: Exchange): boolean {
    return /^bearer(?: |$)/i.test(exchange.header('authorization'))
  }

  identify(exchange: Exchange): Rejection | null {
    const value = soleHeader(exchange, 'authorization')
    if (value === null) return several
    if (!/^bearer /i.test(value)) return missing
    const token = tokenOf(value)
    if (token === '') return malformed
    const id = idOf(token)
    const known = this.remembered.get(id)
    if (known === undefined) return null
    if (nowSeconds() < known.until) exchange.consumer = known.consumer
    else this.remembered.delete(id)
    return null
  }

  /** A remembered token needs no check. */
  takesTime(exchange: Exchange): boolean {
    return exchange.consumer === null
  }

  verifyLater(exchange: Exchange, done: Done): void {
    if (this.checks >= MOST_CHECKS) return done(exchange, busy)
    this.checks++
    const settle = (outcome: Consumer | Rejection | Error): void => {
      this.checks--
      if (exchange.concluded) return
      if (outcome instanceof Error) return exchange.crash(outcome)
      if (outcome instanceof Rejection) return done(exchange, outcome)
      exchange.consumer = outcome
      done(exchange, null)
    }
    this.check(tokenOf(exchange.header('authorization'))).then(settle, settle)
  }

  private async check(token: string): Promise<Consumer | Rejection> {
    const checked = await (await (this.tokens as Promise<TokenCheck>)).check(token)
    if (checked instanceof Rejection) return checked
    const { issuer, claims } = checked
    const consumer = consumerOf(issuer, claims)
    if (!(consumer instanceof Rejection)) this.remember(token, consumer, issuer, claims)
    return consumer
  }

  private remember(token: string, consumer: Consumer, issuer: Issuer, claims: Claims): void {
    if (this.remembered.size >= MOST_REMEMBERED) {
      for (const oldest of this.remembered.keys()) {
        this.remembered.delete(oldest)
        break
      }
    }
    const until = Math.min((claims.exp as number) + issuer.leewaySeconds, nowSeconds() + MOST_REMEMBERED_SECONDS)
    this.remembered.set(idOf(token), { consumer, until })
  }
}

/** Returns a JWS in compact form; '' for anything else. Encrypted tokens (five parts) are not supported. */
function tokenOf(value: string): string {
  return /^bearer +([A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*) *$/i.exec(value)?.[1] ?? ''
}

/** An attacker cannot choose how a token's hash begins, so a lookup tells nothing about remembered tokens. */
function idOf(token: string): string {
  return hash('sha256', token, 'base64')
}

/** The wall clock, the only clock that issuers know. */
function nowSeconds(): number {
  return Date.now() / 1000
}

/** The name goes into a header and the log unchanged. */
const USABLE_NAME = /^[\x21-\x7e]{1,128}$/

function consumerOf(issuer: Issuer, claims: Claims): Consumer | Rejection {
  const claim = claimOf(claims, issuer.consumerClaim)
  if (typeof claim !== 'string' || claim === '') return noConsumer
  const groups = [...issuer.groups, ...claimedGroups(issuer, claims)]
  const consumer = issuer.consumers.get(claim)
  if (consumer !== undefined) {
    return groups.length === 0 ? consumer : { ...consumer, groups: [...consumer.groups, ...groups] }
  }
  if (!issuer.admitsUnlisted) return unlisted
  if (!USABLE_NAME.test(claim)) return noConsumer
  const name = `${issuer.name}:${claim}`
  return {
    name,
    index: -1,
    secrets: [],
    algorithm: 'sha256',
    signs: 'request',
    apiKeys: [],
    password: null,
    httpSignatureKeys: [],
    certificateNames: [],
    groups,
  }
}

function claimedGroups({ groupsClaim }: Issuer, claims: Claims): string[] {
  const claim = groupsClaim === null ? undefined : claimOf(claims, groupsClaim)
  if (typeof claim === 'string') return claim.split(' ').filter((group) => group !== '')
  return Array.isArray(claim) ? claim.filter((group) => typeof group === 'string') : []
}

/**
 * Finds a claim by its name, which may be a URL with dots in it; else by a path into nested claims
 * (`realm_access.roles`).
 */
function claimOf(claims: Claims, name: string): unknown {
  if (Object.hasOwn(claims, name)) return claims[name]
  let value: unknown = claims
  for (const part of name.split('.')) {
    if (typeof value !== 'object' || value === null || !Object.hasOwn(value, part)) return undefined
    value = (value as Record<string, unknown>)[part]
  }
  return value
}
