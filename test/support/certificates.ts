// Certificates of the TLS tests, made when they run: an authority, and what it vouches for. Elliptic keys, because
// these are quick to make.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { generate, type SelfsignedOptions } from 'selfsigned'
import { temporaryFolder } from './gateway.js'

/** As PEM. */
export interface Pair {
  readonly cert: string
  readonly key: string
}

export interface Subject {
  readonly cn?: string
  readonly dns?: readonly string[]
  readonly ips?: readonly string[]
  readonly uris?: readonly string[]
  readonly emails?: readonly string[]
  readonly expired?: boolean
  /** The key is encrypted with it. */
  readonly passphrase?: string
}

export interface Authority extends Pair {
  issue(subject: Subject): Promise<Pair>
}

const DAY_MS = 86_400_000
const COMMON = { keyType: 'ec', algorithm: 'sha256' } as const

export async function createAuthority(name = 'Test CA'): Promise<Authority> {
  const made = await generate([{ name: 'commonName', value: name }], {
    ...COMMON,
    extensions: [
      { name: 'basicConstraints', cA: true, critical: true },
      { name: 'keyUsage', keyCertSign: true, cRLSign: true, critical: true },
    ],
  })
  const ca = { cert: made.cert, key: made.private }
  return { ...ca, issue: (subject) => issue(subject, ca) }
}

async function issue({ cn, passphrase, expired, ...names }: Subject, ca: Pair): Promise<Pair> {
  const altNames = [
    ...(names.emails ?? []).map((value) => ({ type: 1 as const, value })),
    ...(names.dns ?? []).map((value) => ({ type: 2 as const, value })),
    ...(names.uris ?? []).map((value) => ({ type: 6 as const, value })),
    ...(names.ips ?? []).map((ip) => ({ type: 7 as const, ip })),
  ]
  const options: SelfsignedOptions = {
    ...COMMON,
    ca,
    notBeforeDate: new Date(Date.now() - 2 * DAY_MS),
    notAfterDate: new Date(Date.now() + (expired ? -DAY_MS : DAY_MS)),
    extensions: [
      { name: 'basicConstraints', cA: false },
      { name: 'extKeyUsage', serverAuth: true, clientAuth: true },
      ...(altNames.length === 0 ? [] : [{ name: 'subjectAltName' as const, altNames }]),
    ],
    ...(passphrase === undefined ? {} : { passphrase }),
  }
  const made = await generate(cn === undefined ? [] : [{ name: 'commonName', value: cn }], options)
  return { cert: made.cert, key: made.private }
}

/** As files, in a folder of their own unless one is given. */
export function writePair(pair: Pair, folder = temporaryFolder(), name = 'site'): { cert: string; key: string } {
  const files = { cert: join(folder, `${name}.pem`), key: join(folder, `${name}.key`) }
  writeFileSync(files.cert, pair.cert)
  writeFileSync(files.key, pair.key, { mode: 0o600 })
  return files
}
