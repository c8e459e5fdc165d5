// Reads certificates and keys from files. Returns PEM texts that fit together, or says what is wrong and how to mend
// it. Runs when the configuration is loaded, and again whenever the files of the listener change. No message quotes
// what is in a file.
import { createPrivateKey, type KeyObject, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { canonicalHost } from './patterns.js'
import type { Problem } from './problems.js'
import type { Config } from './schema.js'
import { readSecret } from './secrets.js'
import type { Environment } from './settings.js'

export type ListenerTls = NonNullable<Config['tls']>

/** PEM texts. The key is no longer encrypted. */
export interface Pair {
  readonly cert: string
  readonly key: string
}

export interface ServerCertificate extends Pair {
  /** The file that it was read from. */
  readonly file: string
  /** Lower case, exact or `*.suffix`: the names that select this certificate by SNI. */
  readonly names: readonly string[]
  /** Expiry, in milliseconds of Unix time. */
  readonly notAfterMs: number
}

/** Everything a TLS listener needs, as the files held it at one moment. */
export interface TlsMaterial {
  /** The first one serves clients without SNI, or with a name that no certificate has. */
  readonly certificates: readonly ServerCertificate[]
  readonly clientCa: string | null
}

interface PairFiles {
  readonly cert: string
  readonly key: string
  readonly passphrase?: string | undefined
}

type Wrong = (path: readonly PropertyKey[], message: string) => void

/**
 * For services, the PEM texts replace the file names. The listener's file names stay, because its files are read again
 * later.
 */
export function resolveTls(config: Config, env: Environment, directory: string, problems: Problem[]): Config {
  const at = (file: string): string => path.resolve(directory, file)
  const passphrase = (text: string | undefined, where: readonly PropertyKey[]): string | undefined => {
    if (text === undefined) return undefined
    const resolved = readSecret(text, env, directory)
    if ('problem' in resolved) problems.push({ path: [...where, 'passphrase'], message: resolved.problem })
    return 'problem' in resolved ? '' : resolved.secret
  }
  const services = Object.entries(config.services).map(([name, service]) => {
    if (service.tls === undefined) return [name, service] as const
    const { ca, cert, key, passphrase: given, ...rest } = service.tls
    const where = ['services', name, 'tls']
    const wrong = (tail: readonly PropertyKey[], message: string) =>
      problems.push({ path: [...where, ...tail], message })
    const authorities = ca === undefined ? undefined : (readCertificates(at(ca), ['ca'], wrong) ?? undefined)
    const files = cert === undefined || key === undefined ? null : { cert: at(cert), key: at(key) }
    const own = files === null ? null : readPair({ ...files, passphrase: passphrase(given, where) }, wrong)
    return [name, { ...service, tls: { ...rest, ca: authorities, ...own } }] as const
  })
  const resolved = { ...config, services: Object.fromEntries(services) }
  if (config.tls === undefined) return resolved
  const tls = {
    ...config.tls,
    certificates: config.tls.certificates.map((files, index) => ({
      ...files,
      cert: at(files.cert),
      key: at(files.key),
      passphrase: passphrase(files.passphrase, ['tls', 'certificates', index]),
    })),
    clientCa: config.tls.clientCa === undefined ? undefined : at(config.tls.clientCa),
  }
  readListenerTls(tls, problems)
  return { ...resolved, tls }
}

/** @returns null after adding the problems it found to the list */
export function readListenerTls(tls: ListenerTls, problems: Problem[]): TlsMaterial | null {
  const wrong: Wrong = (path, message) => problems.push({ path: ['tls', ...path], message })
  const before = problems.length
  const certificates: ServerCertificate[] = []
  tls.certificates.forEach((files, index) => {
    const pair = readPair(
      files,
      (path, message) => wrong(['certificates', index, ...path], message),
      listenerKeyProblem,
    )
    if (pair === null) return
    const { validTo, subjectAltName } = new X509Certificate(pair.cert)
    const names = files.names?.map(canonicalHost) ?? dnsNames(subjectAltName)
    if (index > 0 && names.length === 0) {
      wrong(['certificates', index, 'cert'], `${files.cert} is for no DNS name, and nobody would get it: give it names`)
    }
    certificates.push({ ...pair, file: files.cert, names, notAfterMs: Date.parse(validTo) })
  })
  const clientCa = tls.clientCa === undefined ? null : readCertificates(tls.clientCa, ['clientCa'], wrong)
  return problems.length > before ? null : { certificates, clientCa }
}

/** @param refuse tells why a key that fits is still refused, or null */
export function readPair(
  files: PairFiles,
  wrong: Wrong,
  refuse: (key: KeyObject) => string | null = () => null,
): Pair | null {
  const cert = readCertificates(files.cert, ['cert'], wrong)
  const pem = readText(files.key, ['key'], wrong)
  if (pem === null) return null
  if (files.passphrase === undefined && /^-----BEGIN ENCRYPTED|^Proc-Type: 4,ENCRYPTED/m.test(pem)) {
    wrong(['key'], `${files.key} is encrypted: give its passphrase (env:NAME or file:PATH)`)
    return null
  }
  // The text could not be read, and the list already says why.
  if (files.passphrase === '') return null
  let key: KeyObject
  try {
    key = createPrivateKey({ key: pem, passphrase: files.passphrase })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (/BAD_DECRYPT|BAD_PASSWORD/.test(code ?? '')) wrong(['passphrase'], `does not open the key in ${files.key}`)
    else wrong(['key'], `${files.key} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)`)
    return null
  }
  if (cert === null) return null
  if (!new X509Certificate(cert).checkPrivateKey(key)) {
    wrong(['key'], `${files.key} does not belong to the first certificate in ${files.cert} (the chain comes after it)`)
    return null
  }
  const refused = refuse(key)
  if (refused !== null) wrong(['key'], `${files.key} ${refused}`)
  return { cert, key: key.export({ type: 'pkcs8', format: 'pem' }) as string }
}

const CURVES = new Set(['prime256v1', 'secp384r1', 'secp521r1'])

/** Reports keys that BoringSSL (linked into uWebSockets.js) loads, but with which every handshake fails. */
function listenerKeyProblem({ asymmetricKeyType, asymmetricKeyDetails }: KeyObject): string | null {
  if (asymmetricKeyType === 'rsa') return null
  if (asymmetricKeyType === 'ec' && CURVES.has(asymmetricKeyDetails?.namedCurve ?? '')) return null
  return 'is of a kind that cannot be served: use RSA, or ECDSA on P-256, P-384 or P-521'
}

/** Splits a PEM text into its certificates. */
export function readCertificates(file: string, path: readonly PropertyKey[], wrong: Wrong): string | null {
  const text = readText(file, path, wrong)
  if (text === null) return null
  const blocks = text.match(/-----BEGIN (?:TRUSTED |X509 )?CERTIFICATE-----[\s\S]*?-----END [A-Z0-9 ]*-----/g) ?? []
  if (blocks.length === 0) {
    wrong(path, `${file} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)`)
    return null
  }
  const broken = blocks.findIndex((block) => !isCertificate(block))
  if (broken >= 0) {
    wrong(path, `certificate ${broken + 1} in ${file} cannot be parsed`)
    return null
  }
  return `${blocks.join('\n')}\n`
}

function isCertificate(pem: string): boolean {
  try {
    return new X509Certificate(pem).raw.length > 0
  } catch {
    return false
  }
}

function readText(file: string, path: readonly PropertyKey[], wrong: Wrong): string | null {
  try {
    return readFileSync(file, 'latin1')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') wrong(path, `the file ${file} does not exist`)
    else wrong(path, `the file ${file} cannot be read by this user (${code})`)
    return null
  }
}

/** `DNS:a.test, DNS:*.b.test, IP Address:127.0.0.1` → a.test, *.b.test */
function dnsNames(subjectAltName: string | undefined): string[] {
  const entries = (subjectAltName ?? '').split(', ')
  return entries.flatMap((entry) => (entry.startsWith('DNS:') ? [entry.slice(4).toLowerCase()] : []))
}
