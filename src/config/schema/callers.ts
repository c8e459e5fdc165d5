// Options about callers: consumers and their credentials, where API keys are looked for, token issuers, and requirements on
// signatures. routes.ts selects which of them a route accepts; that no two consumers share credentials is checked in
// caller-references.ts.
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
    algorithm: z.enum(SIGNATURE_ALGORITHMS).describe("The key's algorithm; a signature that names another is refused."),
    secret: secret.optional().describe('For hmac-sha256: the secret, env:NAME or file:PATH.'),
    encoding: z
      .enum(['utf8', 'base64'])
      .default('utf8')
      .describe('How the secret is written: base64 for one that is not text.'),
    publicKey: z
      .string()
      .min(1)
      .optional()
      .describe('For all others: a PEM public key or certificate; the text itself, env:NAME or file:PATH.'),
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
      .describe('For x-m: one secret, or several while one is being rotated out: each is accepted.'),
    algorithm: z
      .enum(['sha256', 'sha1', 'md5'])
      .default('sha256')
      .describe('Hash of the HMAC. sha1 and md5 are for callers that cannot change.'),
    signs: z
      .enum(['request', 'legacy'])
      .default('request')
      .describe(
        'request: source, time, method, path with query, and body. legacy: source and time alone, which lets whoever sees one request make others until it is stale.',
      ),
    apiKeys: oneOrMore(apiKey)
      .default([])
      .describe(
        'For api-key: the SHA-256 of each key that is accepted, as sha256:HEX. With env:NAME or file:PATH that, or a key, of which only the hash is kept.',
      ),
    password: password
      .optional()
      .describe(
        'For basic, where the user name is that of the consumer: $scrypt$…, or sha256:HEX of a long random one. With env:NAME or file:PATH either, or the password, of which only the hash is kept.',
      ),
    jwt: z
      .record(name, z.string().min(1))
      .default({})
      .describe('For jwt: by issuer, what its consumer claim says of this one, such as { acme: alice }.'),
    httpSignatureKeys: z
      .record(keyid, httpSignatureKeySchema)
      .default({})
      .describe('For http-signature: by keyid, the keys that it signs with. Several while one is being rotated out.'),
    groups: oneOrMore(name).default([]).describe('Groups it is in; a route lets one in by allow: [group:NAME].'),
    certificate: oneOrMore(z.string().min(1))
      .default([])
      .describe('For client-certificate: what its certificate calls it (tls.clientName); one name or several.'),
  })
  .describe('Someone who calls. The name is what x-source says.')

/** Headers that the gateway reads or writes for other purposes. */
const TAKEN =
  /^(host|connection|content-length|transfer-encoding|te|trailer|upgrade|expect|via|forwarded|x-forwarded-.*|traceparent|tracestate|cookie|authorization|x-rid|x-source|x-time|x-m|x-consumer-username)$/

export const apiKeysSchema = z
  .strictObject({
    header: headerName
      .refine((text) => !TAKEN.test(text), 'is a field with a meaning of its own')
      .default('x-api-key')
      .describe('Where a key is looked for.'),
    query: z
      .string()
      .regex(/^[A-Za-z0-9._~-]+$/, 'is not a parameter name; write letters, digits and . _ ~ -')
      .optional()
      .describe(
        'A parameter of the query where one is looked for as well, for callers that can send no header. It is hidden in the log, and stripped as the header is.',
      ),
  })
  .describe('Where requests carry API keys.')

const jwksSchema = z
  .strictObject({
    url: z
      .string()
      .refine((text) => URL.canParse(text) && /^https?:\/\//i.test(text), 'must be an http:// or https:// URL')
      .describe(
        'Where the issuer publishes its keys: 128 KiB and 100 keys at most, within 5 s, from this URL alone (redirects are not followed). Over http whoever is between can put their own in place.',
      ),
    maxAge: duration(1000, 24 * HOUR_MS)
      .prefault('10m')
      .describe(
        'Time after which the keys are asked for again. While the issuer does not answer, known ones are good for an hour more.',
      ),
    cooldown: duration(100, HOUR_MS)
      .prefault('30s')
      .describe('Least time between two requests for keys, also where a token names one that is not known.'),
  })
  .describe('Keys that the issuer publishes as a JWK set (RFC 7517).')

const ALGORITHMS = [
  ...(['HS256', 'HS384', 'HS512'] as const),
  ...(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519'] as const),
]
const PUBLIC_DEFAULT = ['RS256', 'PS256', 'ES256', 'EdDSA', 'Ed25519'] as const

export const issuerSchema = z
  .strictObject({
    issuer: z.string().min(1).describe('The iss claim, to the letter.'),
    audience: oneOrMore(z.string().min(1)).describe(
      'The aud claim must hold one of these: what was issued for another service is no use here.',
    ),
    algorithms: listOf(z.enum(ALGORITHMS))
      .optional()
      .describe(
        'Those accepted, whatever a token says. Default: HS256 with secrets, else RS256, PS256, ES256, EdDSA and Ed25519.',
      ),
    secrets: oneOrMore(secret)
      .optional()
      .describe('For HS256, HS384 and HS512: what the issuer signs with. Each is accepted.'),
    publicKeys: oneOrMore(z.string().min(1))
      .optional()
      .describe(
        'For all others: PEM public keys or certificates, JWKs or JWK sets; the text itself, env:NAME or file:PATH.',
      ),
    jwks: jwksSchema.optional(),
    leeway: duration(0, 600_000).prefault('30s').describe('How far clocks may be apart, for exp and nbf.'),
    consumerClaim: z
      .string()
      .min(1)
      .default('sub')
      .describe(
        'The claim that says who calls; consumers name their value of it under jwt. Dots lead into nested ones.',
      ),
    groupsClaim: z
      .string()
      .min(1)
      .optional()
      .describe(
        'A claim that names groups of the caller, a list or one text with blanks between (as scope is). Dots lead into nested ones.',
      ),
    groups: oneOrMore(name).default([]).describe('Groups that all its callers are in.'),
    unlisted: z
      .enum(['refuse', 'admit'])
      .default('refuse')
      .describe('Callers that no consumer names. admit: they are consumers by the name ISSUER:CLAIM.'),
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
  .describe('Someone whose tokens are believed.')

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
        'What a signature must cover, in place of the default: @method, and @target-uri or else @authority with @request-target or @path and @query. With a body also content-digest, unless signBody: false.',
      ),
    maxAge: duration(1000, 24 * HOUR_MS)
      .optional()
      .describe('How old a signature may be, by created. Default 300s.'),
    leeway: duration(0, HOUR_MS).optional().describe('How far ahead of ours the clock of callers may be. Default 30s.'),
    label: z
      .string()
      .regex(/^[a-z*][a-z0-9_.*-]*$/, 'is not a label (RFC 9651, 3.1.2)')
      .optional()
      .describe('Only a signature with this label counts. Default: the first whose keyid is known.'),
    tag: z
      .string()
      .regex(/^[\u0020-\u007e]+$/, 'is not a tag: printable ASCII')
      .optional()
      .describe('Only a signature with this tag counts.'),
  })
  .describe('What RFC 9421 signatures must be like.')

export const replaySchema = z.enum(['allow', 'once'])
