// RFC 9530: does the body match Content-Digest? Pure; used if a signature covers that header, on the event loop and
// in the digest pool's threads. Runs per request with such a signature.
import { hash } from 'node:crypto'
import { parseDictionary } from 'structured-headers'

/** RFC 9530, 7.2: the algorithms that are not deprecated, and the length of their digests. */
const DIGEST_BYTES = { 'sha-256': 32, 'sha-512': 64 } as const
type Digest = keyof typeof DIGEST_BYTES
const DIGESTS = Object.keys(DIGEST_BYTES) as Digest[]

export function isDigest(name: unknown): boolean {
  return DIGESTS.includes(name as Digest)
}

/**
 * All digests by known, current algorithms must match, and there must be at least one.
 * @param field the header's values as sent, joined by commas
 */
export function digestFits(field: string, body: Uint8Array | null): boolean {
  const digests = read(field)
  return (
    digests.length > 0 &&
    digests.every(([name, bytes]) => bytes.equals(hash(name.replace('-', ''), body ?? '', 'buffer') as Buffer))
  )
}

/** Whether the header has any digest that digestFits would check. */
export function hasDigest(field: string): boolean {
  return read(field).length > 0
}

function read(field: string): [Digest, Buffer][] {
  try {
    const members = parseDictionary(field)
    return DIGESTS.flatMap((name): [Digest, Buffer][] => {
      const value = members.get(name)?.[0]
      if (value === undefined) return []
      // A value that is not a digest matches nothing.
      return [[name, value instanceof ArrayBuffer ? Buffer.from(value) : Buffer.alloc(0)]]
    })
  } catch {
    return []
  }
}
