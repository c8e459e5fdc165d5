// Node's http client. How a client is run and what it checks is in clients.test.ts.
import { Agent, request } from 'node:http'
import { follow, pattern } from './plan.mjs'

const agent = new Agent({ keepAlive: true, maxSockets: 1 })

await follow(
  ({ url, id, framing, expect, bodyBytes }) =>
    new Promise((resolve, reject) => {
      const headers = { 'x-request': id }
      if (framing === 'length') headers['Content-Length'] = bodyBytes
      if (framing === 'chunked') headers['Transfer-Encoding'] = 'chunked'
      if (expect) headers.Expect = '100-continue'
      const outgoing = request(url, { method: framing === 'none' ? 'GET' : 'POST', agent, headers }, (response) => {
        const parts = []
        response.on('data', (part) => parts.push(part))
        response.on('error', reject)
        response.on('end', () =>
          resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(parts) }),
        )
      })
      outgoing.on('error', reject)
      const send = () => outgoing.end(framing === 'none' ? undefined : pattern(bodyBytes))
      if (expect) outgoing.once('continue', send)
      else send()
    }),
)
agent.destroy()
