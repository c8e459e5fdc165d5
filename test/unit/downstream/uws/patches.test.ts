// The proofs of the patches to uWebSockets.js, as a worker runs them: they hold with the uWebSockets.js that is loaded,
// and leave nothing behind.
import { readdirSync } from 'node:fs'
import { expect, test } from 'vitest'
import { native, nativeProblem } from '../../../../native/index.js'
import { openedGate } from '../../../../src/downstream/uws/gate.js'
import { usePatches } from '../../../../src/downstream/uws/patches.js'
import { proveDelivery, proveHandlers, proveRelay } from '../../../../src/downstream/uws/proofs.js'

const settings = { uwsPatches: 'on', headerTimeoutMs: 10_000, idleTimeoutMs: 10_000, maxHeaderBytes: 16_384 } as const
const descriptors = (): number => readdirSync('/proc/self/fd').length

test.skipIf(native === null)(
  `the proofs hold, and leave no descriptor, connection or count${nativeProblem}`,
  async () => {
    const tallies = new Float64Array(12)
    const said: unknown[] = []
    const at = descriptors()
    const options = { settings, tallies, accepts: true, secure: false, warn: (...line: unknown[]) => said.push(line) }
    expect(await usePatches(options)).toEqual({ relays: true })
    expect(said).toEqual([])
    expect([...tallies]).toEqual(Array(12).fill(0))
    expect(openedGate().connections()).toBe(0)

    const before = descriptors()
    // The set of native/src/uws/syscalls.cc.
    expect(before).toBe(at + 1)
    await proveHandlers(native!, openedGate(), true)
    await proveDelivery(native!, openedGate())
    await proveRelay(native!, openedGate())
    await proveRelay(native!, null)
    expect(openedGate().connections()).toBe(0)
    await new Promise((resolve) => setImmediate(resolve))
    expect(descriptors()).toBe(before)
  },
)
