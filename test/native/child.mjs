// The other processes of test/unit/native-*.test.ts, one role each: node child.mjs ADDON ROLE … Plain JavaScript that
// loads the addon itself, so that a child is up in a few milliseconds and compiles nothing.
import { fork } from 'node:child_process'
import { statSync, truncateSync } from 'node:fs'
import { createRequire } from 'node:module'
import { Socket } from 'node:net'

const [, self, addon, role, ...args] = process.argv
const native = createRequire(import.meta.url)(addon)
const forever = () => setInterval(() => {}, 1 << 30)

const roles = {
  // hold PATH: takes the lock and keeps it.
  hold(path) {
    native.openSegment(path, 4096)
    forever()
    process.send('held')
  },
  // primary PATH: takes the lock and has a worker that attaches and outlives it.
  primary(path) {
    const { fd } = native.openSegment(path, 4096)
    const worker = fork(self, [addon, 'attach'], { stdio: ['ignore', 'ignore', 'ignore', fd, 'ipc'] })
    worker.once('message', () => process.send(worker.pid))
  },
  attach() {
    globalThis.mapping = native.attachSegment(3, 4096)
    forever()
    process.send('attached')
  },
  // shorten PATH: cuts the file that it has mapped, and goes on with it; or is sent the signal that this would be.
  shorten(path, signal) {
    const { buffer } = native.openSegment(path, 40_960)
    const bytes = new Uint8Array(buffer).fill(7)
    if (signal !== undefined) process.kill(process.pid, signal)
    truncateSync(path, 10_000)
    bytes[30_000] = 8
    const rest = [5000, 20_000, 30_000].map((at) => bytes[at])
    process.stdout.write(JSON.stringify({ size: statSync(path).size, rest }))
  },
  // count TIMES: one Int32 and one BigInt64 in the segment, both raised TIMES times.
  count(times) {
    const buffer = native.attachSegment(3, 4096)
    const small = new Int32Array(buffer, 0, 1)
    const large = new BigInt64Array(buffer, 8, 1)
    for (let i = 0; i < Number(times); i++) {
      Atomics.add(small, 0, 1)
      for (let seen = Atomics.load(large, 0); ; ) {
        const found = Atomics.compareExchange(large, 0, seen, seen + 3n)
        if (found === seen) break
        seen = found
      }
    }
  },
  // accept WORKERS INDEX[@FD] …: echoes, and counts its open connections in the segment. As several workers at once,
  // each with its own descriptor of the socket, when given several: they share an event loop, so that none can be
  // slower than another.
  accept(workers, ...selves) {
    const counts = new Int32Array(native.attachSegment(4, 4096), 0, Number(workers))
    for (const each of selves) {
      const [index, fd = 3] = each.split('@').map(Number)
      Atomics.store(counts, index, 0)
      const onConnection = (connection) => {
        Atomics.add(counts, index, 1)
        const socket = new Socket({ fd: connection, readable: true, writable: true })
        socket.on('close', () => Atomics.sub(counts, index, 1))
        socket.on('error', () => {})
        socket.pipe(socket)
      }
      native.startAccepting(fd, counts, index, onConnection, (code) => process.send(code), 0)
    }
    process.send('accepting')
  },
}

roles[role](...args)
