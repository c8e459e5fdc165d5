// The parts of `tidegate start --demo`, so that a first look needs no file and no service: an origin in
// this process, a configuration with one consumer and one route, and a signed curl to paste.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { EMPTY_BODY_HASH, sign } from '../policy/signature.js'

const DEMO_BODY = '<p>hello, world</p>\n'
const SECRET = 'demo-secret-of-test'

/** Listens on a free port of the loopback address; responds to everything with 20 bytes. */
export function startDemoOrigin(): Promise<{ url: string; close(): void }> {
  const server = createServer((request, response) => {
    request.resume()
    response.setHeader('content-type', 'text/html')
    response.end(DEMO_BODY)
  })
  // Longer than undici's keep-alive timeout, so that the gateway closes idle connections first.
  server.keepAliveTimeout = 60_000
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      resolve({
        url: `http://127.0.0.1:${port}`,
        close: () => {
          server.close()
          server.closeAllConnections()
        },
      })
    })
  })
}

/** The configuration of `--demo`. */
export function demoConfig(originUrl: string): string {
  return `consumers:
  test: { secret: ${SECRET} }
services:
  demo:
    endpoints: ['${originUrl}']
    breaker: {}
routes:
  - match: { path: / }
    service: demo
    auth: x-m
    allow: [test]
    limits: [{ by: consumer, rate: 1000/s, burst: 200 }]
`
}

/** A signed curl command, valid for five minutes (the default skew). */
export function demoCurl(port: number): string {
  const time = String(Math.floor(Date.now() / 1000))
  const mac = sign({ name: 'test', algorithm: 'sha256', signs: 'request' }, SECRET, time, 'GET', '/', EMPTY_BODY_HASH)
  return `curl -i http://127.0.0.1:${port}/ -H 'x-source: test' -H 'x-time: ${time}' -H 'x-m: ${mac}'`
}
