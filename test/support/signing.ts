// Signs requests as the documentation tells callers to, written from that text and not from src/policy: a mistake there
// must not be repeated here. Remembers what it issued, so that the end of every suite can look for it in the gateway's
// output.
import { createHash, createHmac } from 'node:crypto'

export interface Caller {
  readonly source: string
  readonly secret: string
  readonly algorithm?: 'sha256' | 'sha1' | 'md5'
  /** Signs x-source and x-time alone. */
  readonly legacy?: boolean
}

/** Whoever calls where it does not matter who. */
export const TEST: Caller = { source: 'test', secret: 'the-secret-of-test' }

export interface Signable {
  readonly method?: string
  readonly target?: string
  readonly body?: string | Buffer
  /** For routes with signBody: false. */
  readonly withoutBody?: boolean
  /** Unix seconds; now by default. */
  readonly time?: number
}

const issued = new Set<string>()

/** Every x-m made in this test file. */
export function issuedSignatures(): ReadonlySet<string> {
  return issued
}

export function signedHeaders(
  caller: Caller,
  request: Signable = {},
): { 'x-source': string; 'x-time': string; 'x-m': string } {
  const { method = 'GET', target = '/', body = '', withoutBody = false, time = Math.floor(Date.now() / 1000) } = request
  const bodyLine = withoutBody ? '-' : createHash('sha256').update(body).digest('hex')
  const lines = caller.legacy ? [caller.source, time] : [caller.source, time, method, target, bodyLine]
  const mac = createHmac(caller.algorithm ?? 'sha256', caller.secret)
    .update(lines.join('\n'))
    .digest('hex')
  issued.add(mac)
  return { 'x-source': caller.source, 'x-time': String(time), 'x-m': mac }
}

/** The same with its last digit changed. */
export function withWrongDigit(mac: string): string {
  return mac.slice(0, -1) + (mac.endsWith('0') ? '1' : '0')
}
