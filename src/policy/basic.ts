// Callers known by user name and password (RFC 7617). Runs per request. scrypt is meant to be slow, so it runs on libuv's threads, once for
// credentials that prove right: these are remembered, by an HMAC under a key that dies with the process, so that memory holds no password.
import { createHmac, hash, randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import type { Consumer, RouteTable } from '../config/compile.js'
import { parseScrypt, type ScryptForm, scryptBytes } from '../config/kept.js'
import type { Exchange } from '../ingress/exchange.js'
import { Rejection } from '../outcome.js'
import { type Strategy, soleHeader } from './strategy.js'

const missing = new Rejection('unauthorized', 'Authorization: Basic missing')
const several = new Rejection('unauthorized', 'several Authorization fields')
const malformed = new Rejection('unauthorized', 'Authorization: Basic malformed')
const wrong = new Rejection('unauthorized', 'user or password wrong')
const busy = new Rejection('overloaded', 'password queue full')

/** Checks under way; what comes beyond is told to come back. */
const MOST_CHECKS = 16
/** Of libuv's four threads the others are left to names, files and the signatures of tokens: guessing must not stop those. */
const MOST_THREADS = 2
/** Credentials remembered: users times the ways to write them. */
const MOST_REMEMBERED = 10_000

type Done = (exchange: Exchange, rejection: Rejection | null) => void

interface Password {
  readonly consumer: Consumer | null
  readonly sha256: Buffer
  readonly scrypt: ScryptForm | null
}

/** Nobody's password: nothing fits it. */
const nobody: Password = { consumer: null, sha256: randomBytes(32), scrypt: null }

export class KnownByPassword implements Strategy {
  private readonly users: ReadonlyMap<string, Password>
  /** What a guess costs where no scrypt of the user's own is computed. */
  private readonly costliest: ScryptForm | null
  private readonly memoryKey = randomBytes(32)
  private readonly remembered = new Map<string, Consumer>()
  /** Exchanges that wait for the same check: a client that starts with many connections costs one. */
  private readonly pending = new Map<string, { exchange: Exchange; done: Done }[]>()
  private readonly queue: (() => void)[] = []
  private threads = 0

  constructor(table: Pick<RouteTable, 'consumers'>) {
    const users = table.consumers.flatMap((consumer) =>
      consumer.password === null ? [] : [[consumer.name, passwordOf(consumer, consumer.password)] as const],
    )
    const forms = users.flatMap(([, { scrypt }]) => (scrypt === null ? [] : [scrypt]))
    const costs = ({ N, r, p }: ScryptForm): number => N * r * p
    const costliest = forms.sort((a, b) => costs(b) - costs(a))[0] ?? null
    this.users = new Map(users)
    this.costliest = costliest
  }

  presents(exchange: Exchange): boolean {
    return /^basic(?: |$)/i.test(exchange.header('authorization'))
  }

  identify(exchange: Exchange): Rejection | null {
    const value = soleHeader(exchange, 'authorization')
    if (value === null) return several
    if (!/^basic /i.test(value)) return missing
    const known = this.remembered.get(this.memoryOf(value))
    if (known !== undefined) exchange.consumer = known
    else if (credentialsOf(value) === null) return malformed
    return null
  }

  /** What is remembered needs no check. */
  takesTime(exchange: Exchange): boolean {
    return exchange.consumer === null
  }

  verifyLater(exchange: Exchange, done: Done): void {
    const value = exchange.header('authorization')
    const key = this.memoryOf(value)
    const waiting = this.pending.get(key)
    if (waiting !== undefined) {
      waiting.push({ exchange, done })
      return
    }
    if (this.pending.size >= MOST_CHECKS) return done(exchange, busy)
    this.pending.set(key, [{ exchange, done }])
    const [user, password] = credentialsOf(value) as [string, string]
    const kept = this.users.get(user) ?? nobody
    this.check(kept, password, (fits) => {
      const consumer = fits ? kept.consumer : null
      if (consumer !== null) this.remember(key, consumer)
      const waited = this.pending.get(key) ?? []
      this.pending.delete(key)
      for (const one of waited) {
        if (one.exchange.concluded) continue
        one.exchange.consumer = consumer
        one.done(one.exchange, consumer === null ? wrong : null)
      }
    })
  }

  /** A wrong guess costs one scrypt where anyone's password does, so that time does not tell who has one, or who there is. */
  private check(kept: Password, password: string, done: (fits: boolean) => void): void {
    const fits = timingSafeEqual(hash('sha256', password, 'buffer'), kept.sha256)
    const form = fits ? null : (kept.scrypt ?? this.costliest)
    if (form === null) return done(fits)
    const { N, r, p, salt, hash: expected } = form
    const maxmem = 2 * scryptBytes(N, r)
    this.queue.push(() =>
      scrypt(password, salt, expected.length, { N, r, p, maxmem }, (error, key) => {
        this.threads--
        this.next()
        const equal = error === null && timingSafeEqual(key, expected)
        done(equal && kept.scrypt !== null)
      }),
    )
    this.next()
  }

  private next(): void {
    if (this.threads >= MOST_THREADS) return
    const start = this.queue.shift()
    if (start === undefined) return
    this.threads++
    start()
  }

  private memoryOf(credentials: string): string {
    return createHmac('sha256', this.memoryKey).update(credentials).digest('base64')
  }

  private remember(key: string, consumer: Consumer): void {
    if (this.remembered.size >= MOST_REMEMBERED) {
      for (const oldest of this.remembered.keys()) {
        this.remembered.delete(oldest)
        break
      }
    }
    this.remembered.set(key, consumer)
  }
}

function passwordOf(consumer: Consumer, kept: string): Password {
  const scrypt = parseScrypt(kept)
  // With scrypt no SHA-256 fits.
  const sha256 = scrypt === null ? Buffer.from(kept.slice('sha256:'.length), 'hex') : randomBytes(32)
  return { consumer, sha256, scrypt }
}

const BASE64 = /^basic +([A-Za-z0-9+/]+={0,2}) *$/i
// biome-ignore lint/suspicious/noControlCharactersInRegex: RFC 7617, 2 forbids them
const CONTROL = /[\x00-\x1f\x7f]/

/** User name and password; null where the value is not what RFC 7617 says. */
function credentialsOf(value: string): readonly [user: string, password: string] | null {
  const match = BASE64.exec(value)
  if (match === null) return null
  const text = Buffer.from(match[1] as string, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 || CONTROL.test(text) ? null : [text.slice(0, colon), text.slice(colon + 1)]
}
