// Fetches the key set that an issuer of tokens publishes (RFC 7517): from its URL alone, and no more of it than a key set can be. An issuer is
// trusted to say who calls, not with the memory and the time of a worker. Its errors are for the log: they name the bound.
import type { FetchImplementation, JWK } from 'jose'

export const FETCH_TIMEOUT_MS = 5_000
/** Of the body, which is parsed in one turn of the event loop. A set in use has some kilobytes, one of a hundred long RSA keys has 90. */
const MOST_BYTES = 131_072
/** A token without a key id is checked with each. */
const MOST_KEYS = 100
/** RFC 7517, 4.3 defines eight. jose compares each operation with all others whenever it looks for a key. */
const MOST_OPERATIONS = 8

/** Strings, of the key types that a token may be signed with. A private key (`d`) is then refused as one. */
const MEMBERS = ['kty', 'kid', 'alg', 'use', 'n', 'e', 'crv', 'x', 'y', 'd']

/** For jose: throws for whatever is no key set within these bounds. */
export const fetchKeySet: FetchImplementation = async (url, { signal, headers }) => {
  try {
    // A redirect could lead anywhere, inside the network too. Compressed, a set could be any length.
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

/** What jose reads of a key. It copies whole keys, several times, and what else is in them may be anything. */
function keyOf(key: Record<string, unknown>): JWK {
  const read = MEMBERS.flatMap((name) => (typeof key[name] === 'string' ? [[name, key[name]] as const] : []))
  return { ...Object.fromEntries(read), ...(Array.isArray(key.key_ops) && { key_ops: key.key_ops }) } as JWK
}
