// policy/signature.ts against the ways one would do it otherwise.
import { createHmac, createSecretKey, hash } from 'node:crypto'
import { EMPTY_BODY_HASH, HmacKey, stringToSign } from '../../dist/src/policy/signature.js'
import { measure } from './measure.mjs'

const SECRET = 'not-a-secret-but-thirty-two-long'
const keyObject = createSecretKey(Buffer.from(SECRET))
const messages = Array.from({ length: 64 }, (_, i) =>
  stringToSign('bench', '1700000000', 'GET', `/orders/${i}`, EMPTY_BODY_HASH),
)

for (const algorithm of ['sha256', 'sha1', 'md5']) {
  const key = new HmacKey(algorithm, SECRET)
  const macs = messages.map((message) => createHmac(algorithm, SECRET).update(message).digest('hex'))
  measure(`HmacKey.matches, ${algorithm}`, (i) => key.matches(messages[i & 63], macs[i & 63]))
}
measure('createHmac, sha256, key object', (i) =>
  createHmac('sha256', keyObject)
    .update(messages[i & 63])
    .digest('hex'),
)
measure('createHmac, sha256, secret as text', (i) =>
  createHmac('sha256', SECRET)
    .update(messages[i & 63])
    .digest('hex'),
)
for (const kib of [1, 16, 64, 1024]) {
  const body = Buffer.alloc(kib * 1024, 'body')
  measure(`SHA-256 of a body of ${kib} KiB`, () => hash('sha256', body, 'hex'))
}
