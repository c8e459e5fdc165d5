import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { setImmediate as nextTurn } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { native, nativeProblem } from '../../../native/index.js'

const ARENA_BYTES = 131_072
const CONNECTED = -1
const UNREACHABLE = '255.255.255.255'

/**
 * Within one turn of the event loop: `first`, what has been closed is let go, `then`, and what has happened is told.
 * Both sockets are let go in the same phase as what `first` closes, the one before it and the other after it, whichever
 * way round libuv goes.
 */
async function beforeTheNextTelling(
  sockets: readonly [Socket, Socket],
  first: () => void,
  then: () => void,
): Promise<void> {
  await nextTurn()
  const letGo = Promise.all(sockets.map((socket) => once(socket, 'close')))
  sockets[0].destroy()
  first()
  sockets[1].destroy()
  await letGo
  then()
}

describe.skipIf(native === null)(`the wire${nativeProblem && ` (skipped: ${nativeProblem})`}`, () => {
  it('tells nobody of what happened to a former one of the same number', async () => {
    const server = createServer((socket) => socket.on('error', () => {})).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const { port } = server.address() as AddressInfo
    const sockets = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')] as const
    await Promise.all(sockets.map((socket) => once(socket, 'connect')))
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
      sockets,
      () => {
        former = wire.connect(UNREACHABLE, 9) // fails at once, which is told later
        wire.close(former)
      },
      () => {
        next = wire.connect('127.0.0.1', port)
      },
    )
    await heard
    expect(next).toBe(former)
    expect(told).toEqual([[next, CONNECTED]])
    wire.close(next)
    server.close()
  })
})
