// Identifies consumers by user name and password (RFC 7617). Runs per request. scrypt is slow on purpose, so it runs on
// libuv's threads, once for valid credentials: those are remembered by an HMAC under a key that exists only in this
// process, so that memory holds no password.
import { createHmac, hash, randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import type { Consumer, RouteTable } from '../config/compile.js'
import { parseScrypt, type ScryptForm, scryptBytes } from '../config/kept.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection, wrongCredentials } from '../exchange/outcome.js'
import { addressKey } from './address-key.js'
import { FairQueue } from './fair-queue.js'
import { type Strategy, soleHeader } from './strategy.js'

const missing = new Rejection('unauthorized', 'Authorization: Basic missing')
const several = new Rejection('unauthorized', 'several Authorization fields')
const malformed = new Rejection('unauthorized', 'Authorization: Basic malformed')
const wrong = wrongCredentials('user or password wrong')
const busy = new Rejection('overloaded', 'password queue full')

/** Checks that may wait for a thread, about 10 s of work. Further requests get 503 with Retry-After. */
const MOST_WAITING = 256
/** The rest of libuv's four threads is left to DNS, files and token signatures, which guessing must not stop. */
const MOST_THREADS = 2
/** Credentials remembered. */
const MOST_REMEMBERED = 10_000

type Done = (exchange: Exchange, rejection: Rejection | null) => void

interface Password {
  readonly consumer: Consumer | null
  readonly sha256: Buffer
  readonly scrypt: ScryptForm | null
}

/** A hash that no password matches. */
const nobody: Password = { consumer: null, sha256: randomBytes(32), scrypt: null }

export class KnownByPassword implements Strategy {
  private readonly users: ReadonlyMap<string, Password>
  /** The scrypt that a guess costs if the user has no scrypt hash. */
  private readonly costliest: ScryptForm | null
  private readonly memoryKey = randomBytes(32)
  private readonly remembered = new Map<string, Consumer>()
  /** Exchanges that wait for the same check: a client that opens many connections at once costs one check. */
  private readonly pending = new Map<string, { exchange: Exchange; done: Done }[]>()
  private readonly queue = new FairQueue(MOST_THREADS, MOST_WAITING)

  /** @param mayTry asked for each exchange just before its check begins */
  constructor(
    table: Pick<RouteTable, 'consumers'>,
    private readonly mayTry: (exchange: Exchange) => Rejection | null = () => null,
  ) {
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

  /** Some services send an API key as user name with an empty password, so such a name is never logged. */
  claims(exchange: Exchange): string {
    const [user, password] = credentialsOf(exchange.header('authorization')) ?? ['', '']
    return password === '' ? '' : user
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

  /** Remembered credentials need no check. */
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
    this.pending.set(key, [{ exchange, done }])
    const [user, password] = credentialsOf(value) as [string, string]
    const kept = this.users.get(user) ?? nobody
    this.check(kept, user, password, key, exchange.clientAddress)
  }

  /** If any user has a scrypt hash, every wrong guess costs one scrypt, so that the time tells nothing about users. */
  private check(kept: Password, user: string, password: string, key: string, address: string): void {
    const fits = timingSafeEqual(hash('sha256', password, 'buffer'), kept.sha256)
    const form = fits ? null : (kept.scrypt ?? this.costliest)
    const settle = (consumer: Consumer | null): void => {
      if (consumer !== null) this.remember(key, consumer)
      this.settle(key, consumer, consumer === null ? wrong : null)
    }
    if (form === null) return settle(fits ? kept.consumer : null)
    const { N, r, p, salt, hash: expected } = form
    const maxmem = 2 * scryptBytes(N, r)
    this.queue.add({
      address: addressKey(address),
      name: user,
      begins: () => {
        if (!this.isWanted(key)) return false
        scrypt(password, salt, expected.length, { N, r, p, maxmem }, (error, found) => {
          this.queue.ended()
          const equal = error === null && timingSafeEqual(found, expected)
          settle(equal && kept.scrypt !== null ? kept.consumer : null)
        })
        return true
      },
      dropped: () => this.settle(key, null, busy),
    })
  }

  /**
   * Refuses exchanges that a limit stops and drops those whose client left. Returns false if no exchange waits any
   * more.
   */
  private isWanted(key: string): boolean {
    const waiting = (this.pending.get(key) ?? []).filter(({ exchange, done }) => {
      if (exchange.concluded) return false
      try {
        const refused = this.mayTry(exchange)
        if (refused !== null) done(exchange, refused)
        return refused === null
      } catch (error) {
        // Other exchanges wait for the same check, and the end of another check may have begun it.
        exchange.crash(error)
        return false
      }
    })
    if (waiting.length > 0) this.pending.set(key, waiting)
    else this.pending.delete(key)
    return waiting.length > 0
  }

  private settle(key: string, consumer: Consumer | null, rejection: Rejection | null): void {
    const waiting = this.pending.get(key) ?? []
    this.pending.delete(key)
    for (const { exchange, done } of waiting) {
      if (exchange.concluded) continue
      exchange.consumer = consumer
      done(exchange, rejection)
    }
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
  // No SHA-256 matches a scrypt hash.
  const sha256 = scrypt === null ? Buffer.from(kept.slice('sha256:'.length), 'hex') : randomBytes(32)
  return { consumer, sha256, scrypt }
}

const BASE64 = /^basic +([A-Za-z0-9+/]+={0,2}) *$/i
// biome-ignore lint/suspicious/noControlCharactersInRegex: RFC 7617, 2 forbids them
const CONTROL = /[\x00-\x1f\x7f]/

/** Reads user name and password; null if the value does not follow RFC 7617. */
function credentialsOf(value: string): readonly [user: string, password: string] | null {
  const match = BASE64.exec(value)
  if (match === null) return null
  const text = Buffer.from(match[1] as string, 'base64').toString('utf8')
  const colon = text.indexOf(':')
  return colon < 0 || CONTROL.test(text) ? null : [text.slice(0, colon), text.slice(colon + 1)]
}
