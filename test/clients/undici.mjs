// undici, which knows no Expect.
import { Pool } from 'undici'
import { follow, pattern } from './plan.mjs'

let pool

async function* parts(body) {
  for (let at = 0; at < body.length; at += 40_000) yield body.subarray(at, at + 40_000)
}

await follow(async ({ url, id, framing, bodyBytes }) => {
  const { origin, pathname } = new URL(url)
  pool ??= new Pool(origin, { connections: 1 })
  const body = framing === 'none' ? null : pattern(bodyBytes)
  const {
    statusCode,
    headers,
    body: answer,
  } = await pool.request({
    method: framing === 'none' ? 'GET' : 'POST',
    path: pathname,
    headers: { 'x-request': id },
    body: framing === 'chunked' ? parts(body) : body,
  })
  return { status: statusCode, headers, body: Buffer.from(await answer.arrayBuffer()) }
})
await pool.close()
