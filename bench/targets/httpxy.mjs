// httpxy (the successor of http-proxy) forwarding alone: node httpxy.mjs PORT ORIGIN-PORT
import http from 'node:http'
import { createProxyServer } from 'httpxy'

const [port, originPort] = process.argv.slice(2).map(Number)
const agent = new http.Agent({ keepAlive: true, maxSockets: 128 })
const proxy = createProxyServer({ target: `http://127.0.0.1:${originPort}`, agent })

http
  .createServer(async (request, response) => {
    try {
      await proxy.web(request, response)
    } catch {
      if (!response.headersSent) response.writeHead(502)
      response.end()
    }
  })
  .listen({ port, host: '127.0.0.1', backlog: 4096 })
