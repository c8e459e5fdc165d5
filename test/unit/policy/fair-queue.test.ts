import { beforeEach, expect, it } from 'vitest'
import { FairQueue } from '../../../src/policy/fair-queue.js'

let nowMs: number
let queue: FairQueue
/** What began and what was dropped, in order. */
let events: string[]
let running: number

beforeEach(() => {
  nowMs = 1000
  events = []
  running = 0
  queue = new FairQueue(1, 8, () => nowMs)
})

function add(label: string, address: string, name: string, isWanted = true): void {
  queue.add({
    address,
    name,
    begins: () => {
      if (isWanted) {
        running++
        events.push(label)
      }
      return isWanted
    },
    dropped: () => events.push(`${label} dropped`),
  })
}

function end(): void {
  running--
  queue.ended()
}

/** Ends all that begins; what began, and what was dropped. */
function run(): string[] {
  while (running > 0) end()
  return events
}

it('serves those who are alike in the order in which they came', () => {
  for (const label of ['1', '2', '3']) add(label, 'a', 'x')
  expect(run()).toEqual(['1', '2', '3'])
})

it('begins as many as there are places', () => {
  queue = new FairQueue(2, 8, () => nowMs)
  for (const label of ['1', '2', '3']) add(label, 'a', 'x')
  expect(events).toEqual(['1', '2'])
  end()
  expect(events).toEqual(['1', '2', '3'])
})

it('serves another address before one that had its turn, whatever names that asks for', () => {
  for (let i = 0; i < 5; i++) add(`guess ${i}`, 'a', `name ${i}`)
  add('right', 'b', 'x')
  expect(run().slice(0, 2)).toEqual(['guess 0', 'right'])
})

it('serves another name before one that had its turn, from whatever addresses that is asked for', () => {
  for (let i = 0; i < 5; i++) add(`guess ${i}`, `address ${i}`, 'x')
  add('right', 'b', 'y')
  expect(run().slice(0, 2)).toEqual(['guess 0', 'right'])
})

it('remembers what somebody had, and forgets it', () => {
  add('guess', 'a', 'x')
  end()
  add('running', 'c', 'z')
  add('again', 'a', 'y')
  add('right', 'b', 'y')
  expect(run()).toEqual(['guess', 'running', 'right', 'again'])

  events.length = 0
  queue = new FairQueue(1, 8, () => nowMs)
  for (const [label, address] of [
    ['guess', 'a'],
    ['quiet', 'c'],
  ] as const) {
    add(label, address, label)
    end()
    nowMs += label === 'guess' ? 60_000 : 0
  }
  add('running', 'd', 'z')
  add('after quiet', 'c', 'q')
  add('after long', 'a', 'q')
  expect(run().slice(-2)).toEqual(['after long', 'after quiet'])
})

it('drops the last in line when it is full: of those who have had most, the newest', () => {
  for (let i = 0; i < 9; i++) add(`guess ${i}`, 'a', 'x')
  add('right', 'b', 'y')
  expect(events).toEqual(['guess 0', 'guess 8 dropped'])
  add('guess 9', 'a', 'x')
  expect(events.at(-1)).toBe('guess 9 dropped')
  expect(run().slice(3)[0]).toBe('right')
})

it('drops one that has waited for more than ten seconds, and passes over one that nobody waits for', () => {
  add('running', 'a', 'x')
  add('early', 'a', 'x')
  nowMs += 10_001
  add('left', 'a', 'x', false)
  add('late', 'a', 'x')
  expect(run()).toEqual(['running', 'early dropped', 'late'])
})

it('passes nobody over for long, and holds nothing against anybody for long', () => {
  for (let i = 0; i < 100; i++) {
    add('guess', 'a', 'x')
    end()
  }
  events.length = 0
  add('running', 'r', 'r')
  add('owner', 'a', 'x')
  let others = 0
  for (; !events.includes('owner'); others++) {
    add('other', `b${others}`, `y${others}`)
    nowMs += 100
    end()
  }
  expect(others).toBeGreaterThan(10)
  expect(nowMs).toBeLessThan(1000 + 8500)
})
