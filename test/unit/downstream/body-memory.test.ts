import { describe, expect, it } from 'vitest'
import { BodyMemory } from '../../../src/downstream/body-memory.js'
import { GatheredBytes } from '../../../src/downstream/gathered-bytes.js'
import type { Exchange } from '../../../src/exchange/exchange.js'
import { addressKey } from '../../../src/policy/address-key.js'

const of = (clientAddress: string): Exchange => ({ clientAddress, heldBytes: 0 }) as Exchange

describe('the memory of bodies', () => {
  it('has a bound for all, and a quarter of it for one address', () => {
    const memory = new BodyMemory(1000, addressKey)
    const [a, b, c] = [of('10.0.0.1'), of('10.0.0.1'), of('10.0.0.2')]
    expect(memory.hold(a, 200)).toBe(true)
    expect(memory.hold(b, 51)).toBe(false)
    expect(memory.hold(b, 50)).toBe(true)
    expect(memory.hold(c, 250)).toBe(true)
    for (const [i, last] of [3, 4].entries()) expect(memory.hold(of(`10.0.0.${last}`), 250), String(i)).toBe(true)
    expect(memory.bytes).toBe(1000)
    expect(memory.hold(of('10.0.0.5'), 1)).toBe(false)
  })

  it('gets back what is given back, however often', () => {
    const memory = new BodyMemory(1000, addressKey)
    const one = of('10.0.0.1')
    expect(memory.hold(one, 250)).toBe(true)
    expect(memory.hold(one, 100)).toBe(true)
    expect(memory.hold(one, 0)).toBe(true)
    expect(memory.hold(one, 0)).toBe(true)
    expect([memory.bytes, one.heldBytes]).toEqual([0, 0])
    expect(memory.hold(one, 250)).toBe(true)
  })

  it('changes nothing where it refuses', () => {
    const memory = new BodyMemory(1000, addressKey)
    const one = of('10.0.0.1')
    memory.hold(one, 100)
    expect(memory.hold(one, 300)).toBe(false)
    expect([memory.bytes, one.heldBytes]).toEqual([100, 100])
  })

  it('takes the addresses of one subscriber for one', () => {
    expect(addressKey('2001:db8::1')).toBe(addressKey('2001:0db8:0:0:ffff::2'))
    expect(addressKey('2001:db8:0:1::1')).not.toBe(addressKey('2001:db8::1'))
    expect(addressKey('::ffff:192.0.2.200')).toBe(addressKey('192.0.2.200'))
  })
})

describe('gathered bytes', () => {
  const chunk = (bytes: number[] | Buffer): ArrayBuffer => new Uint8Array(bytes).buffer

  it('are what came, in order', () => {
    const gathered = new GatheredBytes()
    for (let i = 0; i < 1000; i++) gathered.append(chunk([i & 255, i >> 8]), 500)
    expect(gathered.length).toBe(2000)
    expect([...gathered.bytes.subarray(1998)]).toEqual([999 & 255, 999 >> 8])
    expect([...gathered.take().subarray(0, 4)]).toEqual([0, 0, 1, 0])
    expect([gathered.length, gathered.capacity]).toEqual([0, 0])
  })

  it('take no more memory than twice what has arrived, whatever is expected', () => {
    const gathered = new GatheredBytes()
    for (let i = 1; i <= 5000; i++) {
      gathered.append(chunk([1]), 1 << 30)
      expect(gathered.capacity).toBeLessThanOrEqual(2 * i)
    }
  })

  it('take exactly what was expected, once all of it is here', () => {
    const gathered = new GatheredBytes()
    for (let i = 0; i < 10; i++) gathered.append(chunk(Buffer.alloc(100)), 1000)
    expect([gathered.length, gathered.capacity]).toEqual([1000, 1000])
    expect(gathered.bytes.byteLength).toBe(gathered.bytes.buffer.byteLength)
  })

  it('are copied a few times at most', () => {
    const gathered = new GatheredBytes()
    let grown = 0
    for (let i = 0; i < 100_000; i++) {
      const before = gathered.capacity
      gathered.append(chunk([1]), 10_000)
      if (gathered.capacity !== before) grown++
    }
    expect(grown).toBeLessThan(40)
  })
})
