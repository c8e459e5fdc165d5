// The caller's side of x-m, written from docs/signing.md and not with the gateway's own code: a mistake shared by both
// would otherwise measure as success.
import { createHash, createHmac } from 'node:crypto'

export const CONSUMER = 'bench'
export const SECRET = 'not-a-secret-but-thirty-two-long'

export function sign(
  method: string,
  path: string,
  body: Uint8Array,
  timeSeconds = Math.floor(Date.now() / 1000),
): Record<string, string> {
  const bodyHash = createHash('sha256').update(body).digest('hex')
  const text = [CONSUMER, timeSeconds, method, path, bodyHash].join('\n')
  return {
    'x-source': CONSUMER,
    'x-time': String(timeSeconds),
    'x-m': createHmac('sha256', SECRET).update(text).digest('hex'),
  }
}
