// Keys of one issuer of tokens, and jwtVerify over them: secrets, public keys from the configuration, or those the issuer publishes, which
// are fetched when first needed, kept, and asked for again when a token names one that is not among them. Of the users of jose
// (jwt-check.ts, key-set.ts) the one that verifies.
import { createSecretKey, type KeyObject } from 'node:crypto'
import {
  type CryptoKey,
  createLocalJWKSet,
  createRemoteJWKSet,
  customFetch,
  errors,
  type JWTHeaderParameters,
  type JWTPayload,
  type JWTVerifyOptions,
  jwtVerify,
} from 'jose'
import type { Issuer } from '../config/compile.js'
import { FETCH_TIMEOUT_MS, fetchKeySet } from './key-set.js'

type KeyFinder = (header: JWTHeaderParameters) => Promise<CryptoKey>

/** The issuer's keys cannot be had: nothing is said about the token. Its message is for the log. */
export class NoKeysError extends Error {}

/** Told why published keys cannot be fetched, once for each reason; '' once they can be again. */
export type KeysListener = (of: { readonly issuer: string; readonly url: string }, reason: string) => void

/** Keys that were published are good for this long after the issuer fell silent. */
const STALE_MS = 3_600_000
/** An issuer that does not answer is asked again after this time at most. */
const RETRY_MS = 5_000

export class IssuerKeys {
  private readonly options: JWTVerifyOptions
  private readonly secrets: readonly KeyObject[]
  private readonly getKey: KeyFinder

  constructor(issuer: Issuer, onKeys: KeysListener) {
    this.options = {
      algorithms: [...issuer.algorithms],
      issuer: issuer.issuer,
      audience: [...issuer.audience],
      clockTolerance: issuer.leewaySeconds,
      // One that is good for ever cannot be taken back.
      requiredClaims: ['exp'],
    }
    this.secrets = issuer.secrets.map((secret) => createSecretKey(secret, 'utf8'))
    this.getKey = issuer.jwks === null ? givenKeys(issuer.keys) : publishedKeys(issuer.name, issuer.jwks, onKeys)
  }

  /** Signature and claims. @throws errors.JOSEError where the token is no good, NoKeysError */
  async verify(token: string): Promise<JWTPayload> {
    if (this.secrets.length > 0) return this.firstThatFits(token, this.secrets)
    try {
      return (await jwtVerify(token, this.getKey, this.options)).payload
    } catch (error) {
      // A token without a key id may be any key's of its type.
      if (error instanceof errors.JWKSMultipleMatchingKeys) return this.firstThatFits(token, error)
      throw error
    }
  }

  private async firstThatFits(
    token: string,
    keys: Iterable<KeyObject> | AsyncIterable<CryptoKey>,
  ): Promise<JWTPayload> {
    for await (const key of keys) {
      try {
        return (await jwtVerify(token, key, this.options)).payload
      } catch (error) {
        if (!(error instanceof errors.JWSSignatureVerificationFailed)) throw error
      }
    }
    throw new errors.JWSSignatureVerificationFailed()
  }
}

/** Those without a key id, as PEM keys are, fit any that a token names. */
function givenKeys(keys: Issuer['keys']): KeyFinder {
  const named = createLocalJWKSet({ keys: keys.filter(({ kid }) => kid !== undefined) as never })
  const nameless = createLocalJWKSet({ keys: keys.filter(({ kid }) => kid === undefined) as never })
  return async (header) => {
    try {
      return await named(onlyKeyOf(header))
    } catch (error) {
      if (!(error instanceof errors.JWKSNoMatchingKey)) throw error
      return nameless({ alg: header.alg })
    }
  }
}

/** What a header says of keys (jwk, jku, x5c, x5u) is the caller's word: it is not even passed on. */
function onlyKeyOf({ alg, kid }: JWTHeaderParameters): JWTHeaderParameters {
  return kid === undefined ? { alg } : { alg, kid }
}

function publishedKeys(
  issuer: string,
  { url, maxAgeMs, cooldownMs }: NonNullable<Issuer['jwks']>,
  onKeys: KeysListener,
): KeyFinder {
  const remote = createRemoteJWKSet(new URL(url), {
    cacheMaxAge: maxAgeMs,
    cooldownDuration: cooldownMs,
    timeoutDuration: FETCH_TIMEOUT_MS,
    [customFetch]: async (url, options) => {
      const response = await fetchKeySet(url, options)
      if (failure !== '') onKeys({ issuer, url }, '')
      failure = ''
      return response
    },
  })
  let freshMs = Number.NEGATIVE_INFINITY
  let failedMs = Number.NEGATIVE_INFINITY
  let failure = ''
  /** What was known when the issuer failed. */
  let last: KeyFinder | null = null
  const fromLast: KeyFinder = (header) => {
    if (last === null || Date.now() - freshMs > STALE_MS)
      throw new NoKeysError(`keys of ${issuer} cannot be had: ${failure}`)
    return last(header)
  }
  return async (header) => {
    const asked = onlyKeyOf(header)
    // jose would ask again for each token while the issuer fails.
    if (Date.now() - failedMs < Math.min(RETRY_MS, cooldownMs)) return fromLast(asked)
    try {
      const key = await remote(asked)
      freshMs = Date.now()
      return key
    } catch (error) {
      if (isAboutToken(error)) throw error
      failedMs = Date.now()
      const reason = describe(error as Error)
      // Once for each reason, as it may fail for days. Requests say it only where no keys are left.
      if (reason !== failure) onKeys({ issuer, url }, reason)
      failure = reason
      const known = remote.jwks()
      last = known === undefined ? null : createLocalJWKSet(known)
      return fromLast(asked)
    }
  }
}

/** What fetch says is `fetch failed`; why is in its cause. */
function describe({ message, cause }: Error): string {
  const { code, message: why } = Object(cause) as { code?: unknown; message?: unknown }
  return String(code ?? why ?? message)
}

function isAboutToken(error: unknown): boolean {
  return (
    error instanceof errors.JWKSNoMatchingKey ||
    error instanceof errors.JWKSMultipleMatchingKeys ||
    error instanceof errors.JOSENotSupported
  )
}
