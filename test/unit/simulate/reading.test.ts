// How `tidegate simulate` reads logs: lines, what they say, and in which order requests began.
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { describe, expect, it } from 'vitest'
import { type Entry, parseEntry } from '../../../src/simulate/entry.js'
import { MAX_LINE_BYTES, readLines } from '../../../src/simulate/log-lines.js'
import { HELD_US, LogError, replay } from '../../../src/simulate/replay.js'
import { TimeQueue } from '../../../src/simulate/time-queue.js'
import { temporaryFolder } from '../../support/gateway.js'

const TIME = Date.UTC(2026, 10, 21)

function line(over: Record<string, unknown> = {}): string {
  return JSON.stringify({
    level: 30,
    time: TIME,
    rid: '00',
    client: '192.0.2.1',
    method: 'GET',
    path: '/',
    route: '/',
    service: 'demo',
    endpoint: 'http://127.0.0.1:9000',
    status: 200,
    bytesIn: 0,
    bytesOut: 20,
    totalMs: 1.333,
    upstreamMs: 1.031,
    attempts: 1,
    ...over,
  })
}

describe('lines', () => {
  async function linesOf(...chunks: string[]): Promise<[number, string | null][]> {
    const lines: [number, string | null][] = []
    await readLines(Readable.from(chunks.map((chunk) => Buffer.from(chunk))), (text, number) => {
      lines.push([number, text])
      return true
    })
    return lines
  }

  it('are found wherever the chunks end, with or without a newline behind the last', async () => {
    const expected = [
      [1, 'one'],
      [2, 'two'],
      [4, 'three'],
    ]
    expect(await linesOf('one\ntwo\r\n\nthree')).toEqual(expected)
    expect(await linesOf(...'one\ntwo\r\n\nthree\n')).toEqual(expected)
  })

  it('that are too long are no text, and the next ones are read', async () => {
    const long = 'x'.repeat(MAX_LINE_BYTES + 1)
    const expected = [
      [1, 'a'],
      [2, null],
      [3, 'b'],
      [4, null],
    ]
    expect(await linesOf(`a\n${long}\nb\n${long}`)).toEqual(expected)
    const whole = `a\n${long}\nb\n${long}`
    const chunks = Array.from({ length: Math.ceil(whole.length / 9999) }, (_, i) =>
      whole.slice(i * 9999, (i + 1) * 9999),
    )
    expect(await linesOf(...chunks)).toEqual(expected)
  })
})

describe('an access line', () => {
  it('says when its request began', () => {
    const entry = parseEntry(line({ consumer: 'test', totalMs: 12.5 })) as Entry
    expect(entry).toMatchObject({ beginUs: TIME * 1000 - 12_500, totalUs: 12_500, upstreamUs: 1031, consumer: 'test' })
  })

  it.each([
    ['text', 'is not JSON'],
    ['[]', 'is not a JSON object'],
    ['null', 'is not a JSON object'],
    [JSON.stringify({ level: 30, time: TIME, msg: 'listening' }), 'has no "rid"'],
    [line({ path: undefined }), 'has no "method" and "path"'],
    [line({ consumer: 7 }), '"consumer" is not a text'],
    [line({ time: 'now' }), '"time" is not'],
    [line({ time: 1 }), '"time" is not'],
    [line({ totalMs: -1 }), '"totalMs" is not'],
    [line({ status: 0 }), '"status" is not'],
    [line({ attempts: 'two' }), 'is not a number'],
    [line({ code: 'new_code' }), '"code" or "fallback" is not'],
  ])('%s is none', (text, problem) => {
    expect(parseEntry(text)).toContain(problem)
  })
})

describe('events', () => {
  it('come in the order of their times, and in that of their arrival where times cannot tell', () => {
    const queue = new TimeQueue<string>()
    queue.add(5000, 'c', 999)
    queue.add(9000, 'e', 999)
    queue.add(4500, 'd', 999)
    queue.add(1000, 'a', 999)
    queue.add(3500, 'b', 999)
    const taken: [number, string][] = []
    while (queue.length > 0) taken.push([queue.nextUs, queue.take()])
    expect(taken).toEqual([
      [1000, 'a'],
      [3500, 'b'],
      [5000, 'c'],
      [5000, 'd'],
      [9000, 'e'],
    ])
    expect(queue.nextUs).toBe(Number.POSITIVE_INFINITY)
  })

  it('stay in order over many', () => {
    const queue = new TimeQueue<number>()
    const times: number[] = []
    for (let i = 0; i < 20_000; i++) {
      queue.add(i * 10 + ((i * 7919) % 1000), i)
      if (i < 200) continue
      times.push(queue.nextUs)
      queue.take()
    }
    expect(times).toEqual(times.toSorted((a, b) => a - b))
    expect(queue.length).toBe(200)
  })
})

describe('a log', () => {
  function file(...lines: string[]): string {
    const name = join(temporaryFolder(), 'access.log')
    writeFileSync(name, `${lines.join('\n')}\n`)
    return name
  }

  async function played(...files: string[]) {
    const begun: string[] = []
    const times: number[] = []
    const summary = await replay(files, (entry, nowUs) => {
      begun.push(entry.path)
      times.push(nowUs)
    })
    expect(times).toEqual(times.toSorted((a, b) => a - b))
    return { begun, summary }
  }

  it('is played in the order in which requests began', async () => {
    const { begun, summary } = await played(
      file(
        line({ path: '/2', time: TIME + 100, totalMs: 10 }),
        line({ path: '/3', time: TIME + 200, totalMs: 10 }),
        line({ path: '/1', time: TIME + 5000, totalMs: 4999 }),
      ),
    )
    expect(begun).toEqual(['/1', '/2', '/3'])
    expect(summary).toMatchObject({ requests: 3, late: 0, fromUs: (TIME + 1) * 1000, toUs: (TIME + 5000) * 1000 })
  })

  it('plays a request late that took longer than lines are held', async () => {
    const { begun, summary } = await played(
      file(
        line({ path: '/1', time: TIME }),
        line({ path: '/2', time: TIME + 90_000 }),
        line({ path: '/3', time: TIME + 180_000 }),
        line({ path: '/0', time: TIME + 180_000, totalMs: 180_000 + HELD_US / 1000 }),
      ),
    )
    expect(begun).toEqual(['/1', '/2', '/0', '/3'])
    expect(summary.late).toBe(1)
  })

  it('may come in several files, in any order', async () => {
    const newer = file(line({ path: '/2', time: TIME + 1000 }))
    const older = file('not a line', line({ path: '/1' }))
    const { begun, summary } = await played(newer, older)
    expect(begun).toEqual(['/1', '/2'])
    expect(summary).toMatchObject({ files: [older, newer], lines: 3, malformed: 1 })
    expect(summary.firstMalformed).toEqual([{ file: older, line: 1, problem: 'is not JSON' }])
  })

  it('without an access line is none', async () => {
    const none = file(...Array.from({ length: 2000 }, () => 'x'))
    await expect(played(none)).rejects.toThrow(
      new LogError(`${none}: is no access log of Tidegate; line 1 is not JSON`),
    )
    await expect(played(temporaryFolder())).rejects.toThrow('is a directory')
  })
})
