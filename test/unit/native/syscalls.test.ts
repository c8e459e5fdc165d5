import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { native, nativeProblem } from '../../../native/index.js'

const addon = join(import.meta.dirname, '../../../native/build/Release/tidegate.node')
const child = join(import.meta.dirname, '../../native/uws-child.mjs')

describe.skipIf(native === null)(`spared system calls${nativeProblem && ` (skipped: ${nativeProblem})`}`, () => {
  it('has connections of uWebSockets.js watched by a set of their own, as long as they last', async () => {
    const { stdout } = await promisify(execFile)(process.execPath, [child, addon])
    expect(JSON.parse(stdout)).toEqual({
      spared: true,
      // With the listening socket.
      watched: [1, 2, 1],
      answers: ['HTTP/1.1 200 OK', 'HTTP/1.1 200 OK'],
    })
  })
})
