// `tidegate sign --key-id`: signs one request by RFC 9421, over everything that a gateway requires by default. Offline.
import { constants, createHmac, createPrivateKey, hash, type KeyObject, randomBytes, sign } from 'node:crypto'
import { type InnerList, serializeDictionary } from 'structured-headers'
import { SIGNATURE_ALGORITHMS } from '../config/http-signature.js'
import { ConfigError } from '../config/load.js'
import { Rejection } from '../exchange/outcome.js'
import { type Scheme, type SignedRequest, signatureBase } from '../policy/signature-base.js'

export interface MessageKey {
  readonly id: string
  /** A PEM private key, or the secret of an HMAC. */
  readonly text: string
  readonly encoding: 'utf8' | 'base64'
}

type Sign = (base: Buffer) => Buffer

/** @param headers name, value, … with lower-case names, including host. @throws ConfigError if the key is invalid */
export function messageFields(
  request: Omit<SignedRequest, 'headers'>,
  scheme: Scheme,
  host: string,
  body: Buffer | null,
  key: MessageKey,
  created: number,
): string[] {
  const signs = signerOf(key)
  const digest = body === null ? null : `sha-256=:${hash('sha256', body, 'base64')}:`
  const headers = ['host', host, ...(digest === null ? [] : ['content-digest', digest])]
  const components = ['@method', '@authority', '@path']
  if (request.hasQuery) components.push('@query')
  if (digest !== null) components.push('content-digest')
  const input: InnerList = [
    components.map((name) => [name, new Map()]),
    new Map<string, string | number>([
      ['created', created],
      ['keyid', key.id],
      // So that two equal requests within a second differ (replay: once).
      ['nonce', randomBytes(12).toString('base64url')],
    ]),
  ]
  const base = signatureBase({ ...request, headers }, scheme, input)
  if (base instanceof Rejection) throw new ConfigError([base.reason])
  const signature = serializeDictionary({ sig1: [signs(Buffer.from(base, 'latin1')), new Map()] })
  const fields = [`Signature-Input: ${serializeDictionary({ sig1: input })}`, `Signature: ${signature}`]
  return digest === null ? fields : [`Content-Digest: ${digest}`, ...fields]
}

function signerOf({ text, encoding }: MessageKey): Sign {
  if (!text.includes('-----BEGIN')) {
    const secret = Buffer.from(text, encoding)
    return (base) => createHmac('sha256', secret).update(base).digest()
  }
  let key: KeyObject
  try {
    key = createPrivateKey(text)
  } catch {
    throw new ConfigError(['--key: is no PEM private key'])
  }
  switch (key.asymmetricKeyType) {
    case 'ed25519':
      return (base) => sign(null, base, key)
    case 'ec':
      if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') break
      return (base) => sign('sha256', base, { key, dsaEncoding: 'ieee-p1363' })
    case 'rsa':
    case 'rsa-pss': {
      const padding = constants.RSA_PKCS1_PSS_PADDING
      return (base) => sign('sha512', base, { key, padding, saltLength: 64 })
    }
  }
  throw new ConfigError([`--key: is no key for ${SIGNATURE_ALGORITHMS.join(', ')}`])
}
