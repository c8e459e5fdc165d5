// Options about callers: consumers and their credentials, where API keys are looked for, token issuers, and
// requirements on signatures. routes.ts selects which of them a route accepts; that no two consumers share credentials
// is checked in caller-references.ts.
import { z } from 'zod'
import { componentIdentifier, SIGNATURE_ALGORITHMS } from '../http-signature.js'
import { duration, HOUR_MS, headerName, listOf, name, oneOrMore, secret } from './values.js'

/** A hash rather than clear text: many people read the configuration. */
const apiKey = z
  .string()
  .regex(
    /^(sha256:[0-9a-f]{64}|(env|file):.+)$/,
    'must be sha256:HEX, env:NAME or file:PATH; tidegate hash makes the first of a key',
  )
const password = z
  .string()
  .regex(
    /^(sha256:[0-9a-f]{64}|\$scrypt\$.+|(env|file):.+)$/,
    'must be $scrypt$…, sha256:HEX, env:NAME or file:PATH; tidegate hash makes the first of a password',
  )

const httpSignatureKeySchema = z
  .strictObject({
    algorithm: z
      .enum(SIGNATURE_ALGORITHMS)
      .describe("The key's algorithm. A signature that names another one is refused."),
    secret: secret.optional().describe('For hmac-sha256: the secret, env:NAME or file:PATH.'),
    encoding: z
      .enum(['utf8', 'base64'])
      .default('utf8')
      .describe('Encoding of the secret: utf8, or base64 for a secret that is not text.'),
    publicKey: z
      .string()
      .min(1)
      .optional()
      .describe('For the other algorithms: a PEM public key or certificate, as text, env:NAME or file:PATH.'),
  })
  .superRefine(({ algorithm, secret, publicKey }, context) => {
    const wanted = algorithm === 'hmac-sha256' ? 'secret' : 'publicKey'
    const other = algorithm === 'hmac-sha256' ? 'publicKey' : 'secret'
    const given = { secret, publicKey }
    if (given[other] !== undefined) {
      context.addIssue({ code: 'custom', path: [other], message: `is not for ${algorithm}, which has a ${wanted}` })
    } else if (given[wanted] === undefined) context.addIssue(`needs a ${wanted} for ${algorithm}`)
  })
  .transform((key) => ({
    ...key,
    /** Filled from secret or publicKey, in secrets.ts. */
    material: '',
  }))

const keyid = z.string().regex(/^[\u0020-\u007e]{1,256}$/, 'is not a keyid: printable ASCII, 256 in all')

export const consumerSchema = z
  .strictObject({
    secret: oneOrMore(secret)
      .default([])
      .describe('For x-m: one secret, or several during a rotation. Each is accepted.'),
    algorithm: z
      .enum(['sha256', 'sha1', 'md5'])
      .default('sha256')
      .describe('Hash function of the HMAC. Use sha1 and md5 only for clients that cannot change.'),
    signs: z
      .enum(['request', 'legacy'])
      .default('request')
      .describe(
        'What the signature covers. request: source, time, method, path with query, and body. legacy: only source and time, so anyone who sees a request can forge others until it expires.',
      ),
    apiKeys: oneOrMore(apiKey)
      .default([])
      .describe(
        'For api-key: the SHA-256 of each accepted key, as sha256:HEX. env:NAME or file:PATH may hold a hash or a key; the gateway keeps only the hash.',
      ),
    password: password
      .optional()
      .describe(
        'For basic: the password as $scrypt$…, or as sha256:HEX if it is long and random. The user name is the name of the consumer. env:NAME or file:PATH may hold a hash or the password; the gateway keeps only the hash.',
      ),
    jwt: z
      .record(name, z.string().min(1))
      .default({})
      .describe(
        "For jwt: the value of the issuer's consumer claim that identifies this consumer, by issuer, such as { acme: alice }.",
      ),
    httpSignatureKeys: z
      .record(keyid, httpSignatureKeySchema)
      .default({})
      .describe('For http-signature: the keys of this consumer, by keyid. Use several during a rotation.'),
    groups: oneOrMore(name)
      .default([])
      .describe('Groups of this consumer. A route admits a group with allow: [group:NAME].'),
    certificate: oneOrMore(z.string().min(1))
      .default([])
      .describe(
        "For client-certificate: the name or names in this consumer's certificate, of the kind that tls.clientName selects.",
      ),
  })
  .describe('A consumer: a known caller. For x-m, its name is the value of x-source.')

/** Headers that the gateway reads or writes for other purposes. */
const TAKEN =
  /^(host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|via|forwarded|x-forwarded-.*|traceparent|tracestate|cookie|authorization|x-rid|x-source|x-time|x-m|x-consumer-username)$/

export const apiKeysSchema = z
  .strictObject({
    header: headerName
      .refine((text) => !TAKEN.test(text), 'is a field with a meaning of its own')
      .prefault('x-api-key')
      .describe('Header that carries the key.'),
    query: z
      .string()
      .regex(/^[A-Za-z0-9._~-]+$/, 'is not a parameter name; write letters, digits and . _ ~ -')
      .optional()
      .describe(
        'Query parameter that may carry the key instead, for clients that cannot send headers. It is hidden in the log, and stripped like the header.',
      ),
  })
  .describe('Where requests carry API keys.')

const jwksSchema = z
  .strictObject({
    url: z
      .string()
      .refine((text) => URL.canParse(text) && /^https?:\/\//i.test(text), 'must be an http:// or https:// URL')
      .describe(
        'URL of the published key set: at most 128 KiB and 100 keys, within 5 s. Redirects are not followed. With http, anyone on the network path can replace the keys.',
      ),
    maxAge: duration(1000, 24 * HOUR_MS)
      .prefault('10m')
      .describe(
        'Time after which the keys are fetched again. If the issuer is unreachable, cached keys stay valid for an hour.',
      ),
    cooldown: duration(100, HOUR_MS)
      .prefault('30s')
      .describe('Shortest time between two fetches, even if a token names an unknown key.'),
  })
  .describe('The key set that the issuer publishes (JWK set, RFC 7517).')

const ALGORITHMS = [
  ...(['HS256', 'HS384', 'HS512'] as const),
  ...(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const),
]
const PUBLIC_DEFAULT = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'] as const

export const issuerSchema = z
  .strictObject({
    issuer: z.string().min(1).describe('The exact value of the iss claim.'),
    audience: oneOrMore(z.string().min(1)).describe(
      'The aud claim must contain one of these values, so that tokens for other services are refused.',
    ),
    algorithms: listOf(z.enum(ALGORITHMS))
      .optional()
      .describe('Accepted algorithms. Default: HS256 with secrets, else RS256, PS256, ES256, EdDSA and Ed25519.'),
    secrets: oneOrMore(secret)
      .optional()
      .describe('For HS256, HS384 and HS512: the secrets of the issuer. Each is accepted.'),
    publicKeys: oneOrMore(z.string().min(1))
      .optional()
      .describe(
        'For the other algorithms: PEM public keys or certificates, JWKs or JWK sets, as text, env:NAME or file:PATH.',
      ),
    jwks: jwksSchema.optional(),
    leeway: duration(0, 600_000).prefault('30s').describe('Tolerance for clock differences when checking exp and nbf.'),
    consumerClaim: z
      .string()
      .min(1)
      .default('sub')
      .describe(
        'The claim that identifies the caller. Consumers list their value of it under jwt. Dots lead into nested claims.',
      ),
    groupsClaim: z
      .string()
      .min(1)
      .optional()
      .describe(
        'A claim with groups of the caller: a list, or one text separated by blanks (like scope). Dots lead into nested claims.',
      ),
    groups: oneOrMore(name).default([]).describe('Groups of every caller with a token of this issuer.'),
    unlisted: z
      .enum(['refuse', 'admit'])
      .default('refuse')
      .describe('What happens to callers that no consumer lists. admit: they become consumers named ISSUER:CLAIM.'),
  })
  .superRefine(({ secrets, publicKeys, jwks, algorithms }, context) => {
    const given = Object.entries({ secrets, publicKeys, jwks }).filter(([, value]) => value !== undefined)
    if (given.length === 0) context.addIssue('needs secrets, publicKeys or jwks')
    if (given.length > 1) {
      context.addIssue({
        code: 'custom',
        path: [given[1]?.[0] as string],
        message: `cannot stand next to ${given[0]?.[0]}`,
      })
    }
    for (const [at, algorithm] of (algorithms ?? []).entries()) {
      if (algorithm.startsWith('HS') === (secrets !== undefined)) continue
      const fitting = secrets === undefined ? 'is made with secrets' : 'is made with key pairs, not with secrets'
      context.addIssue({ code: 'custom', path: ['algorithms', at], message: `${algorithm} ${fitting}` })
    }
  })
  .transform((issuer) => ({
    ...issuer,
    algorithms: issuer.algorithms ?? (issuer.secrets === undefined ? [...PUBLIC_DEFAULT] : ['HS256' as const]),
    /** Filled from publicKeys, in load.ts. */
    keys: [] as Record<string, unknown>[],
  }))
  .describe('A trusted issuer of tokens.')

export const httpSignatureSchema = z
  .strictObject({
    components: listOf(
      z.string().transform((text, context) => {
        const identifier = componentIdentifier(text)
        if (identifier === null) {
          context.addIssue('is not a component; write @method, a field in lower case, or @query-param;name="NAME"')
        }
        return identifier ?? ''
      }),
    )
      .optional()
      .describe(
        'Components that a signature must cover. Default: @method, and @target-uri or @authority with @request-target or @path and @query. With a body also content-digest, unless signBody is false.',
      ),
    maxAge: duration(1000, 24 * HOUR_MS)
      .optional()
      .describe('Greatest age of a signature, from its created parameter. Default 300s.'),
    leeway: duration(0, HOUR_MS)
      .optional()
      .describe("How far a client's clock may be ahead of the gateway's. Default 30s."),
    label: z
      .string()
      .regex(/^[a-z*][a-z0-9_.*-]*$/, 'is not a label (RFC 9651, 3.1.2)')
      .optional()
      .describe('Accept only the signature with this label. Default: the first with a known keyid.'),
    tag: z
      .string()
      .regex(/^[\u0020-\u007e]+$/, 'is not a tag: printable ASCII')
      .optional()
      .describe('Accept only a signature with this tag.'),
  })
  .describe('Requirements on RFC 9421 signatures.')

export const replaySchema = z.enum(['allow', 'once'])
