// Is a token valid? Finds its issuer, asks that issuer's keys, and turns jose's errors into our words. Loaded only if
// the configuration has issuers. Knows neither requests nor consumers.
import { decodeJwt, errors, type JWTPayload } from 'jose'
import type { Issuer } from '../config/compile.js'
import { Rejection, wrongCredentials } from '../exchange/outcome.js'
import { IssuerKeys, type KeysListener, NoKeysError } from './jwt-keys.js'

export type Claims = JWTPayload

const unknownIssuer = wrongCredentials('token of an unknown issuer')
const malformed = new Rejection('unauthorized', 'token malformed')
const badAlgorithm = wrongCredentials('token with an algorithm that is not allowed')
const unknownKey = wrongCredentials('token names no known key')
const badSignature = wrongCredentials('token signature does not match')
const expired = new Rejection('unauthorized', 'token expired')
const notYet = new Rejection('unauthorized', 'token not valid yet')
const badAudience = new Rejection('unauthorized', 'token audience not accepted')
const badClaim = new Rejection('unauthorized', 'token without a claim it must have')

export class TokenCheck {
  /** By the iss claim. */
  private readonly issuers: ReadonlyMap<string, { readonly issuer: Issuer; readonly keys: IssuerKeys }>

  constructor(issuers: readonly Issuer[], onKeys: KeysListener) {
    this.issuers = new Map(
      issuers.map((issuer) => [issuer.issuer, { issuer, keys: new IssuerKeys(issuer, onKeys) }] as const),
    )
  }

  async check(token: string): Promise<{ readonly issuer: Issuer; readonly claims: Claims } | Rejection> {
    try {
      // Not verified yet: it only selects the issuer's keys.
      const { iss } = decodeJwt(token)
      const known = typeof iss === 'string' ? this.issuers.get(iss) : undefined
      if (known === undefined) return unknownIssuer
      return { issuer: known.issuer, claims: await known.keys.verify(token) }
    } catch (error) {
      return rejectionOf(error)
    }
  }
}

function rejectionOf(error: unknown): Rejection {
  if (error instanceof NoKeysError) return new Rejection('keys_unavailable', error.message)
  if (error instanceof errors.JWTExpired) return expired
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.reason === 'missing') return badClaim
    if (error.claim === 'nbf') return notYet
    return error.claim === 'aud' ? badAudience : badClaim
  }
  if (error instanceof errors.JOSEAlgNotAllowed) return badAlgorithm
  if (error instanceof errors.JWSSignatureVerificationFailed) return badSignature
  if (error instanceof errors.JWKSNoMatchingKey) return unknownKey
  return malformed
}
