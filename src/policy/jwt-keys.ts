// The keys of one token issuer, and jwtVerify with them: a secret, public keys from the configuration, or keys that the
// issuer publishes, which are fetched when first needed, cached, and fetched again when a token names an unknown key.
// Of the users of jose (jwt-check.ts, key-set.ts) the one that verifies.
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

/** The issuer's keys are unavailable, so the token cannot be judged. The message is for the log. */
export class NoKeysError extends Error {}

/** Called with the reason why published keys cannot be fetched, once per reason; with '' when fetching works again. */
export type KeysListener = (of: { readonly issuer: string; readonly url: string }, reason: string) => void

/** If the issuer is unreachable, cached keys stay valid for this long. */
const STALE_MS = 3_600_000
/** Longest pause before an unreachable issuer is asked again. */
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
      // A token without expiry could never be revoked.
      requiredClaims: ['exp'],
    }
    this.secrets = issuer.secrets.map((secret) => createSecretKey(secret, 'utf8'))
    this.getKey = issuer.jwks === null ? givenKeys(issuer.keys) : publishedKeys(issuer.name, issuer.jwks, onKeys)
  }

  /** Verifies signature and claims. @throws errors.JOSEError if the token is invalid, NoKeysError */
  async verify(token: string): Promise<JWTPayload> {
    if (this.secrets.length > 0) return this.firstThatFits(token, this.secrets)
    try {
      return (await jwtVerify(token, this.getKey, this.options)).payload
    } catch (error) {
      // A token without a key id may have been signed with any key of its type.
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

/** Keys without an id, such as PEM keys, match any key id of a token. */
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

/** Keys in the token's own header (jwk, jku, x5c, x5u) are untrusted input and never passed on. */
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
  /** The keys that were cached when the issuer failed. */
  let last: KeyFinder | null = null
  const fromLast: KeyFinder = (header) => {
    if (last === null || Date.now() - freshMs > STALE_MS)
      throw new NoKeysError(`keys of ${issuer} cannot be had: ${failure}`)
    return last(header)
  }
  return async (header) => {
    const asked = onlyKeyOf(header)
    // Without this, jose would ask again for each token while the issuer fails.
    if (Date.now() - failedMs < Math.min(RETRY_MS, cooldownMs)) return fromLast(asked)
    try {
      const key = await remote(asked)
      freshMs = Date.now()
      return key
    } catch (error) {
      if (isAboutToken(error)) throw error
      failedMs = Date.now()
      const reason = describe(error as Error)
      // Logged once per reason, because it may fail for days. Requests fail only when no keys are left.
      if (reason !== failure) onKeys({ issuer, url }, reason)
      failure = reason
      const known = remote.jwks()
      last = known === undefined ? null : createLocalJWKSet(known)
      return fromLast(asked)
    }
  }
}

/** fetch only says `fetch failed`; its cause has the reason. */
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
