// JSON Web Tokens made by hand (RFC 7515, 7518), good and bad ones alike: a library would refuse to make the bad. And
// an issuer that publishes its keys. Remembers every token it made, for the end of a suite to look for them.
import { createHmac, generateKeyPairSync, type JsonWebKey, type KeyObject, sign as signBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface KeyPair {
  readonly kid: string
  readonly algorithm: 'RS256' | 'PS256' | 'ES256' | 'EdDSA'
  readonly publicKey: KeyObject
  readonly privateKey: KeyObject
}

export function keyPair(kid: string, algorithm: KeyPair['algorithm'] = 'RS256'): KeyPair {
  const pair =
    algorithm === 'ES256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : algorithm === 'EdDSA'
        ? generateKeyPairSync('ed25519')
        : generateKeyPairSync('rsa', { modulusLength: 2048 })
  return { kid, algorithm, ...pair }
}

export function jwkOf({ kid, publicKey }: KeyPair): JsonWebKey {
  return { ...publicKey.export({ format: 'jwk' }), kid, use: 'sig' }
}

const made = new Set<string>()
/** Every token made in this test file, without its head: that is no secret and the same for many. */
export function madeTokens(): string[] {
  return [...made]
}

export const encode = (json: object): string => Buffer.from(JSON.stringify(json)).toString('base64url')

/** The two parts of a token and what `sign` makes of them. */
export function assemble(header: object, claims: object, sign: (input: string) => Buffer | string): string {
  const input = `${encode(header)}.${encode(claims)}`
  const token = `${input}.${Buffer.from(sign(input) as string).toString('base64url')}`
  made.add(token.slice(token.indexOf('.') + 1))
  return token
}

export function signedToken(pair: KeyPair, claims: object, header: object = {}): string {
  const whole = { alg: pair.algorithm, typ: 'JWT', kid: pair.kid, ...header }
  return assemble(whole, claims, (input) => rawSignature(pair, input))
}

export function rawSignature({ algorithm, privateKey }: KeyPair, input: string): Buffer {
  const data = Buffer.from(input)
  if (algorithm === 'EdDSA') return signBytes(null, data, privateKey)
  if (algorithm === 'ES256') return signBytes('sha256', data, { key: privateKey, dsaEncoding: 'ieee-p1363' })
  if (algorithm === 'PS256') return signBytes('sha256', data, { key: privateKey, padding: 6, saltLength: 32 })
  return signBytes('sha256', data, privateKey)
}

export function hmacToken(secret: string | Buffer, claims: object, header: object = {}): string {
  return assemble({ alg: 'HS256', typ: 'JWT', ...header }, claims, (input) =>
    createHmac('sha256', secret).update(input).digest(),
  )
}

/** Unix seconds, off by so many. */
export const inSeconds = (seconds: number): number => Math.floor(Date.now() / 1000) + seconds

/** Publishes a JWK set at its URL, as long as it is not told to fail. */
export class KeyServer {
  keys: JsonWebKey[] = []
  fails = false
  /** Answers in place of the set. */
  answers: ((response: ServerResponse) => void) | null = null
  requests = 0
  private readonly server = createServer((_, response) => {
    this.requests++
    if (this.answers !== null) this.answers(response)
    else if (this.fails) response.writeHead(500).end()
    else response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify({ keys: this.keys }))
  })

  async start(): Promise<string> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}/jwks.json`
  }

  async close(): Promise<void> {
    this.server.close()
    this.server.closeAllConnections()
    await once(this.server, 'close')
  }
}
