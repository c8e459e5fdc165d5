import { type ChildProcess, fork, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Native, native, nativeProblem } from '../../../native/index.js'

const addon = join(import.meta.dirname, '../../../native/build/Release/tidegate.node')
const child = join(import.meta.dirname, '../../native/child.mjs')

describe.skipIf(native === null)(`the mapped segment${nativeProblem && ` (skipped: ${nativeProblem})`}`, () => {
  const { openSegment, replaceSegment, attachSegment, closeFd } = native ?? ({} as Native)
  let folder: string
  let path: string
  let children: ChildProcess[]
  let descriptors: number[]

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'tidegate-segment-'))
    path = join(folder, 'segment')
    children = []
    descriptors = []
  })
  afterEach(() => {
    for (const each of children) each.kill('SIGKILL')
    for (const fd of descriptors) closeFd(fd)
    rmSync(folder, { recursive: true })
  })

  const open = (at: string | null, bytes: number) => {
    const segment = openSegment(at, bytes)
    descriptors.push(segment.fd)
    return segment
  }
  const start = (role: string, args: string[], fds: number[] = []) => {
    const process = fork(child, [addon, role, ...args], { stdio: ['ignore', 'inherit', 'inherit', ...fds, 'ipc'] })
    children.push(process)
    return process
  }
  const openDescriptors = () => readdirSync('/proc/self/fd').length

  it('creates a private file of the size asked for, with blocks of its own', () => {
    const segment = open(path, 100_000)
    expect(segment).toMatchObject({ created: true, bytes: 100_000 })
    expect(segment.buffer.byteLength).toBe(100_000)
    const file = statSync(path)
    expect(file.mode & 0o7777).toBe(0o600)
    expect(file.blocks * 512).toBeGreaterThanOrEqual(100_000)
  })

  it('finds what an earlier mapping wrote, grows the file and never shrinks it', () => {
    const first = openSegment(path, 4096)
    new Uint8Array(first.buffer).set([1, 2, 3])
    closeFd(first.fd)
    const grown = openSegment(path, 8192)
    expect(grown).toMatchObject({ created: false, bytes: 8192 })
    expect([...new Uint8Array(grown.buffer, 0, 4)]).toEqual([1, 2, 3, 0])
    closeFd(grown.fd)
    const smaller = open(path, 100)
    expect(smaller).toMatchObject({ created: false, bytes: 8192 })
    expect(smaller.buffer.byteLength).toBe(100)
  })

  it('refuses what is not a private file of its own', () => {
    const code = (at: string) => {
      try {
        openSegment(at, 4096)
      } catch (error) {
        return (error as NodeJS.ErrnoException).code
      }
      return 'opened'
    }
    writeFileSync(join(folder, 'target'), '', { mode: 0o600 })
    symlinkSync(join(folder, 'target'), join(folder, 'symlink'))
    symlinkSync(join(folder, 'nowhere'), join(folder, 'dangling'))
    mkdirSync(join(folder, 'directory'))
    writeFileSync(join(folder, 'readable'), '')
    chmodSync(join(folder, 'readable'), 0o644)
    writeFileSync(join(folder, 'linked'), '', { mode: 0o600 })
    linkSync(join(folder, 'linked'), join(folder, 'link'))
    expect(code(join(folder, 'symlink'))).toBe('ELOOP')
    expect(code(join(folder, 'dangling'))).toBe('ELOOP')
    expect(existsSync(join(folder, 'nowhere'))).toBe(false)
    expect(code(join(folder, 'directory'))).toBe('EISDIR')
    expect(code(join(folder, 'readable'))).toBe('EUNSAFE')
    expect(code(join(folder, 'link'))).toBe('EUNSAFE')
    expect(code('/dev/null')).toBe('EUNSAFE')
    expect(code(join(folder, 'no', 'such', 'folder'))).toBe('ENOENT')
  })

  it('is locked while another process has it, and free once that one is killed', async () => {
    const holder = start('hold', [path])
    expect(await once(holder, 'message')).toContain('held')
    expect(() => openSegment(path, 4096)).toThrow(expect.objectContaining({ code: 'ELOCKED', syscall: 'flock' }))
    holder.kill('SIGKILL')
    await once(holder, 'exit')
    expect(open(path, 4096).created).toBe(false)
  })

  it('is free once the primary is killed, though its worker lives on with the memory mapped', async () => {
    const primary = start('primary', [path])
    const [worker] = (await once(primary, 'message')) as [number]
    try {
      expect(() => openSegment(path, 4096)).toThrow(expect.objectContaining({ code: 'ELOCKED' }))
      primary.kill('SIGKILL')
      await once(primary, 'exit')
      expect(open(path, 4096).created).toBe(false)
      process.kill(worker, 0) // throws if it is gone
    } finally {
      process.kill(worker, 'SIGKILL')
    }
  })

  it('counts exactly when four processes raise the same two numbers', async () => {
    const { fd, buffer } = open(path, 4096)
    const counters = Array.from({ length: 4 }, () => start('count', ['200000'], [fd]))
    const codes = await Promise.all(counters.map((each) => once(each, 'exit')))
    expect(codes.map(([code]) => code)).toEqual([0, 0, 0, 0])
    expect(new Int32Array(buffer, 0, 1)[0]).toBe(800_000)
    expect(new BigInt64Array(buffer, 8, 1)[0]).toBe(2_400_000n)
  })

  it('survives that somebody cuts the file short: it has its length again, and zeros for what is gone', () => {
    const { status, signal, stdout } = spawnSync(process.execPath, [child, addon, 'shorten', path])
    expect({ status, signal }).toEqual({ status: 0, signal: null })
    expect(JSON.parse(String(stdout))).toEqual({ size: 40_960, rest: [7, 0, 8] })
    const kept = readFileSync(path)
    expect([5000, 20_000, 30_000].map((at) => kept[at])).toEqual([7, 0, 8])
    // One that is sent is not ours to survive.
    expect(spawnSync(process.execPath, [child, addon, 'shorten', path, 'SIGBUS']).signal).toBe('SIGBUS')
  })

  it('leaves files alone that do not carry the magic, and knows its own by either page', () => {
    const refused = expect.objectContaining({ code: 'EFOREIGN' })
    writeFileSync(path, Buffer.alloc(8192), { mode: 0o600 })
    expect(() => openSegment(path, 8192, 'MAGIC')).toThrow(refused)
    for (const at of [0, 4096]) {
      writeFileSync(path, Buffer.alloc(8192).fill('MAGIC', at, at + 5), { mode: 0o600 })
      closeFd(openSegment(path, 8192, 'MAGIC').fd)
      expect(() => openSegment(path, 8192, 'OTHER')).toThrow(refused)
    }
    rmSync(path)
    const { fd, buffer } = openSegment(path, 8192, 'MAGIC')
    expect(Buffer.from(buffer, 0, 6).toString()).toBe('MAGIC\0')
    writeFileSync(`${path}.new`, 'x')
    expect(() => replaceSegment(fd, path, 8192, 'MAGIC')).toThrow(refused)
    closeFd(fd)
  })

  it('replaces a file that does not fit without letting go of the path', () => {
    const old = openSegment(path, 4096)
    new Uint8Array(old.buffer)[0] = 7
    writeFileSync(`${path}.new`, 'left by a crash')
    const fresh = replaceSegment(old.fd, path, 8192)
    descriptors.push(fresh.fd)
    expect(fresh).toMatchObject({ created: true, bytes: 8192 })
    expect(new Uint8Array(fresh.buffer)[0]).toBe(0)
    expect(new Uint8Array(old.buffer)[0]).toBe(7) // the old mapping keeps the old inode
    expect(statSync(path)).toMatchObject({ size: 8192 })
    expect(readdirSync(folder)).toEqual(['segment'])
    expect(() => openSegment(path, 4096)).toThrow(expect.objectContaining({ code: 'ELOCKED' }))
  })

  it('does not replace a file that another starter has put in place', () => {
    const old = open(path, 4096)
    rmSync(path)
    const other = open(path, 4096)
    expect(() => replaceSegment(old.fd, path, 4096)).toThrow(expect.objectContaining({ code: 'ESTALE' }))
    expect(other.created).toBe(true)
  })

  it('maps an inherited descriptor and closes it', () => {
    const { fd, buffer } = openSegment(null, 4096)
    const before = openDescriptors()
    const attached = attachSegment(fd, 4096)
    expect(openDescriptors()).toBe(before - 1)
    new Int32Array(buffer)[5] = 42
    expect(new Int32Array(attached)[5]).toBe(42)
  })

  it('maps nothing past the end of the file', () => {
    const { fd } = open(null, 4096)
    expect(() => attachSegment(fd, 4097)).toThrow(expect.objectContaining({ code: 'EOVERFLOW' }))
    expect(() => attachSegment(1_000_000, 4096)).toThrow(expect.objectContaining({ code: 'EBADF' }))
  })

  it('leaks no descriptor over a thousand failures', () => {
    const held = open(path, 4096)
    symlinkSync(path, join(folder, 'symlink'))
    writeFileSync(join(folder, 'readable'), '')
    const failing = [
      () => openSegment(path, 4096), // ELOCKED
      () => openSegment(join(folder, 'symlink'), 4096),
      () => openSegment(join(folder, 'readable'), 4096),
      () => openSegment(folder, 4096),
      () => openSegment('/dev/full', 4096),
      () => replaceSegment(held.fd, join(folder, 'readable'), 4096),
      () => attachSegment(held.fd, 1_000_000),
    ]
    const before = openDescriptors()
    for (let i = 0; i < 1000; i++) expect(failing[i % failing.length]).toThrow()
    for (let i = 0; i < 1000; i++) closeFd(openSegment(null, 4096).fd)
    expect(openDescriptors()).toBe(before)
  })

  it('names the argument that is wrong', () => {
    const call = (name: string, args: unknown[]) => () =>
      (native as unknown as Record<string, (...a: unknown[]) => void>)[name]!(...args)
    expect(call('openSegment', [])).toThrow(/^path must be a string$/)
    expect(call('openSegment', ['a\0b', 1])).toThrow(/^path must be .* without a zero byte$/)
    expect(call('openSegment', ['x'.repeat(5000), 1])).toThrow(/^path must be a string of less than 4096 bytes/)
    for (const bytes of [undefined, 0, -1, 1.5, Number.NaN, 2 ** 31 + 1, '1', 1n, {}]) {
      expect(call('openSegment', [path, bytes])).toThrow(/^bytes must be an integer from 1 to 2147483648$/)
    }
    expect(call('attachSegment', ['3', 1])).toThrow(/^fd must be an integer/)
    expect(call('replaceSegment', [1, null, 1])).toThrow(/^path must be a string/)
    expect(call('closeFd', [-1])).toThrow(/^fd must be an integer/)
    expect(existsSync(path)).toBe(false)
  })
})
