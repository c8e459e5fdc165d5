// Listens with room for one connection in its queue and never accepts: further ones get no answer to their SYN. Prints its port.
import { createServer } from 'node:net'

const server = createServer()
server.listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => {
  process.stdout.write(`${server.address().port}\n`, () => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0))
})
