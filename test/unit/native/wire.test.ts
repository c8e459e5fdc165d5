import { once } from 'node:events'
import { type AddressInfo, createServer } from 'node:net'
import { describe, expect, it } from 'vitest'
import { native, nativeProblem } from '../../../native/index.js'

const ARENA_BYTES = 131_072
const CONNECTED = -1
const UNREACHABLE = '255.255.255.255'

/** Within one turn of the event loop: `first`, what has been closed is let go, `then`, and what has happened is told. */
function beforeTheNextTelling(first: () => void, then: () => void): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => {
      first()
      setTimeout(() => resolve(then()), 1)
      const dueAt = performance.now() + 3
      while (performance.now() < dueAt);
    })
  })
}

describe.skipIf(native === null)(`the wire${nativeProblem && ` (skipped: ${nativeProblem})`}`, () => {
  it('tells nobody of what happened to a former one of the same number', async () => {
    const server = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const told: [number, number][] = []
    let hear = (): void => {}
    const wire = native!.openWire(ARENA_BYTES, (records) => {
      const words = new Int32Array(wire.memory, ARENA_BYTES)
      for (let i = 0; i < records; i++) told.push([words[1 + 4 * i]!, words[2 + 4 * i]!])
      if (told.length > 0) hear()
    })
    const heard = new Promise<void>((resolve) => {
      hear = resolve
    })
    let former = -1
    let next = -1
    await beforeTheNextTelling(
      () => {
        former = wire.connect(UNREACHABLE, 9) // fails at once, which is told later
        wire.close(former)
      },
      () => {
        next = wire.connect('127.0.0.1', (server.address() as AddressInfo).port)
      },
    )
    await heard
    expect(next).toBe(former)
    expect(told).toEqual([[next, CONNECTED]])
    wire.close(next)
    server.close()
  })
})
