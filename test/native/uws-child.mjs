// A process of test/unit/native/syscalls.test.ts: node uws-child.mjs ADDON. One connection to a server of
// uWebSockets.js, two requests; prints how many descriptors the set of src/uws/syscalls.cc has before it, while it is
// kept, and behind it.
import { once } from 'node:events'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { connect } from 'node:net'

const require = createRequire(import.meta.url)
const native = require(process.argv[2])

function load() {
  try {
    return require('uWebSockets.js-next')
  } catch {
    return require('uWebSockets.js')
  }
}

function epolls() {
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[eventpoll]'
    } catch {
      return false
    }
  })
}

const uWS = load()
const before = new Set(epolls())
const spared = native.spareSyscalls(new Uint8Array(1))
const set = epolls().find((fd) => !before.has(fd))
const size = () => readFileSync(`/proc/self/fdinfo/${set}`, 'utf8').split('tfd:').length - 1

const app = uWS.App().any('/*', (res) => res.end('answer'))
const port = await new Promise((resolve) => {
  app.listen('127.0.0.1', 0, (socket) => resolve(uWS.us_socket_local_port(socket)))
})
const watched = [size()]
const answers = []
const client = connect(port, '127.0.0.1')
for (const connection of ['keep-alive', 'close']) {
  client.write(`GET / HTTP/1.1\r\nHost: a\r\nConnection: ${connection}\r\n\r\n`)
  const [data] = await once(client, 'data')
  answers.push(data.toString().split('\r\n')[0])
  if (connection === 'keep-alive') watched.push(size())
}
await once(client, 'close')
watched.push(size())
process.stdout.write(JSON.stringify({ spared, watched, answers }))
process.exit()
