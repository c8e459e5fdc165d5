// @fastify/http-proxy forwarding alone: node fastify-http-proxy.mjs PORT ORIGIN-PORT
import proxy from '@fastify/http-proxy'
import fastify from 'fastify'

const [port, originPort] = process.argv.slice(2).map(Number)
const server = fastify()
await server.register(proxy, {
  upstream: `http://127.0.0.1:${originPort}`,
  undici: { connections: 128, pipelining: 1 },
})
await server.listen({ port, host: '127.0.0.1', backlog: 4096 })
