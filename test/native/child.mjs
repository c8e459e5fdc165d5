// The other processes of test/unit/native-*.test.ts, one role each: node child.mjs ADDON ROLE … Plain JavaScript that loads the
// addon itself, so that a child is up in a few milliseconds and compiles nothing.
import { fork } from 'node:child_process'
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
  // accept INDEX WORKERS: echoes, and counts its open connections in the segment.
  accept(index, workers) {
    const counts = new Int32Array(native.attachSegment(4, 4096), 0, Number(workers))
    Atomics.store(counts, Number(index), 0)
    const onConnection = (fd) => {
      Atomics.add(counts, Number(index), 1)
      const socket = new Socket({ fd, readable: true, writable: true })
      socket.on('close', () => Atomics.sub(counts, Number(index), 1))
      socket.on('error', () => {})
      socket.pipe(socket)
    }
    native.startAccepting(3, counts, Number(index), onConnection, (code) => process.send(code))
    process.send('accepting')
  },
}

roles[role](...args)
