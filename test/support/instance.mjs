// One instance of a service in a process of its own, to be killed: takes some time for each request, tells its port.
import { createServer } from 'node:http'

const [port, takesMs] = process.argv.slice(2).map(Number)
const server = createServer((request, response) => {
  request.resume()
  request.on('end', () => setTimeout(() => response.end('well\n'), takesMs))
})
server.keepAliveTimeout = 60_000
server.listen(port, '127.0.0.1', () => console.log(server.address().port))
