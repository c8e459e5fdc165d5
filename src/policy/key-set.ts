// Fetches the key set that a token issuer publishes (RFC 7517): only from its URL, and no more bytes than a key set can
// have. An issuer is trusted to identify callers, but not with a worker's memory and time. The errors are for the log
// and name the exceeded bound.
import type { FetchImplementation, JWK } from 'jose'

export const FETCH_TIMEOUT_MS = 5_000
/**
 * Most bytes of the body, which is parsed in one turn of the event loop. Real sets have some kilobytes; a hundred long
 * RSA keys take 90.
 */
const MOST_BYTES = 131_072
/** Most keys, because a token without a key id is checked with each. */
const MOST_KEYS = 100
/** RFC 7517, 4.3 defines eight. jose compares each operation with all others whenever it looks for a key. */
const MOST_OPERATIONS = 8

/** The members, all strings, of the key types that sign tokens. A private key (`d`) is refused later. */
const MEMBERS = ['kty', 'kid', 'alg', 'use', 'n', 'e', 'crv', 'x', 'y', 'd']

/** For jose. Throws if the response is not a key set within these bounds. */
export const fetchKeySet: FetchImplementation = async (url, { signal, headers }) => {
  try {
    // A redirect could lead anywhere, even into the internal network. A compressed set could expand to any length.
    const init = { signal, headers: { ...Object.fromEntries(headers), 'accept-encoding': 'identity' } }
    const response = await fetch(url, { ...init, redirect: 'manual' })
    if (response.status !== 200) {
      await response.body?.cancel()
      const redirects = response.status >= 300 && response.status < 400
      throw new Error(`answered ${response.status}${redirects ? ': redirects are not followed' : ''}`)
    }
    return Response.json({ keys: keysOf(parsed(await textOf(response))) })
  } catch (error) {
    if ((error as Error).name !== 'TimeoutError') throw error
    throw new Error(`no whole answer within ${FETCH_TIMEOUT_MS / 1000} s`)
  }
}

async function textOf(response: Response): Promise<string> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  for await (const chunk of response.body ?? []) {
    bytes += chunk.length
    // Leaving the loop ends the connection.
    if (bytes > MOST_BYTES) throw new Error(`answer over ${MOST_BYTES / 1024} KiB`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw new Error('answer is no JSON')
  }
}

function keysOf(set: unknown): JWK[] {
  const keys: unknown = Object(set).keys
  if (!Array.isArray(keys) || keys.some((key) => Object(key) !== key)) throw new Error('answer is no key set')
  if (keys.length > MOST_KEYS) throw new Error(`${keys.length} keys, ${MOST_KEYS} at most`)
  return keys
    .map(keyOf)
    .filter(({ key_ops: operations }) => operations === undefined || operations.length <= MOST_OPERATIONS)
}

/** Keeps only the members that jose reads: it copies whole keys several times, and the rest could be anything. */
function keyOf(key: Record<string, unknown>): JWK {
  const read = MEMBERS.flatMap((name) => (typeof key[name] === 'string' ? [[name, key[name]] as const] : []))
  return { ...Object.fromEntries(read), ...(Array.isArray(key.key_ops) && { key_ops: key.key_ops }) } as JWK
}
