import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { BreakerTable, breakersSection } from '../../../src/state/breaker-table.js'
import { openSegment } from '../../../src/state/open-segment.js'
import { Owners } from '../../../src/state/owners.js'
import { SECTIONS } from '../../../src/state/sections.js'
import type { Segment } from '../../../src/state/segment.js'

let segment: Segment
let child: ChildProcess

beforeEach(() => {
  const spec = { workers: 1, rateLimitKeys: 64, services: 1, endpoints: 1, routes: 1 }
  segment = openSegment(SECTIONS, spec, { path: null, isolation: 'thread' })
  child = spawn('sleep', ['60'])
})

afterEach(() => void child.kill('SIGKILL'))

async function end(): Promise<void> {
  child.kill('SIGKILL')
  await once(child, 'exit')
}

describe.skipIf(process.platform !== 'linux')('owner indexes', () => {
  it('are given to one process each, and again once they are free', () => {
    const owners = new Owners(segment)
    expect([owners.take(process.pid), owners.take(child.pid!), owners.take(process.pid)]).toEqual([0, 1, 2])
    owners.free(1)
    expect(owners.taken()).toEqual([0, 2])
    expect(owners.take(child.pid!)).toBe(1)
  })

  it('run out after 256', () => {
    const owners = new Owners(segment)
    for (let i = 0; i < 256; i++) expect(owners.take(process.pid)).toBe(i)
    expect(owners.take(process.pid)).toBe(-1)
  })

  it('are known to be dead, also where their pid is given to another process', async () => {
    const owners = new Owners(segment)
    owners.take(child.pid!)
    expect(owners.isAlive(0)).toBe(true)
    const { buffer, offset } = segment.section('rates')
    new Float64Array(buffer, offset, 64)[41]! -= 1
    expect(owners.isAlive(0)).toBe(false)
    new Float64Array(buffer, offset, 64)[41]! += 1
    await end()
    expect(owners.isAlive(0)).toBe(false)
    expect(owners.isAlive(5)).toBe(false)
  })

  it('keep the probes of those who outlived their primary, and free those of the dead', async () => {
    const owners = new Owners(segment)
    const [dead, alive] = [owners.take(child.pid!), owners.take(process.pid)]
    const record = new BreakerTable(segment).record('demo')
    expect([dead, alive].map((owner) => record.takeProbe(0, 2, owner, 1000, 60_000))).toEqual([0, 1])
    await end()
    breakersSection.adopt(segment, segment, 0)
    expect(record.takeProbe(0, 2, 7, 1000, 60_000)).toBe(0)
    expect(record.takeProbe(0, 2, 7, 1000, 60_000)).toBe(-1)
    expect(record.endProbe(0, 1, alive, 'ok')).toBe(true)
  })
})
