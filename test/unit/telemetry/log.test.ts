import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { createLog } from '../../../src/telemetry/log.js'

const folder = mkdtempSync(join(tmpdir(), 'tidegate-log-'))
afterAll(() => rmSync(folder, { recursive: true }))

function lines(path: string): Record<string, unknown>[] {
  return readFileSync(path, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
}

describe("the gateway's own log", () => {
  it('has each line out when the call returns, with who wrote it', () => {
    const path = join(folder, 'lines')
    const fd = openSync(path, 'a')
    createLog({ level: 'info', fd }).log.info({ port: 8080 }, 'listening')
    createLog({ level: 'info', worker: 3, fd }).log.warn('hm')
    expect(lines(path)).toMatchObject([
      { level: 30, name: 'tidegate', pid: process.pid, port: 8080, msg: 'listening' },
      { level: 40, name: 'tidegate', worker: 3, msg: 'hm' },
    ])
    expect(lines(path)[0]).not.toHaveProperty('worker')
    closeSync(fd)
  })

  it('is silent below its level', () => {
    const path = join(folder, 'levels')
    const fd = openSync(path, 'a')
    const { log } = createLog({ level: 'error', fd })
    log.warn('no')
    log.error({ err: new Error('boom') }, 'yes')
    expect(lines(path)).toMatchObject([{ msg: 'yes', err: { message: 'boom', type: 'Error' } }])
    closeSync(fd)
  })

  it('shows no secret even if it is handed a consumer', () => {
    const path = join(folder, 'secrets')
    const fd = openSync(path, 'a')
    const { log } = createLog({ level: 'info', fd })
    const consumer = { name: 'test', secrets: ['s3cret'], secret: 's3cret' }
    log.info(consumer, 'one')
    log.info({ consumer }, 'two')
    log.info({ consumers: [consumer] }, 'three')
    expect(readFileSync(path, 'utf8')).not.toContain('s3cret')
    closeSync(fd)
  })

  it('neither throws nor waits when nobody reads it, or nobody can', () => {
    const gone = openSync(join(folder, 'gone'), 'a')
    const { log } = createLog({ level: 'info', fd: gone })
    closeSync(gone)
    log.info('to a closed descriptor')
    log.fatal('and again')

    const path = join(folder, 'pipe')
    execFileSync('mkfifo', [path])
    const reader = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
    const { log: stalled } = createLog({ level: 'info', fd })
    for (let i = 0; i < 200; i++) stalled.info('x'.repeat(1000))
    closeSync(reader)
    stalled.fatal('to a broken pipe')
    closeSync(fd)
  })
})
