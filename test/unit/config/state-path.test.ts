import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { defaultStatePath, makeStateDirectory, type StatePlaces } from '../../../src/config/state-path.js'

const uid = process.getuid?.() ?? 0
const NAME = `tidegate-${uid}-8080.state`
const formerTemp = process.env.TMPDIR
let folder: string
/** As /tmp is. */
let shared: string

beforeEach(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'tidegate-state-'))
  shared = path.join(folder, 'shared')
  mkdirSync(shared)
  chmodSync(shared, 0o1777)
  process.env.TMPDIR = shared
})
afterEach(() => {
  if (formerTemp === undefined) delete process.env.TMPDIR
  else process.env.TMPDIR = formerTemp
  rmSync(folder, { recursive: true })
})

const choose = (places: Partial<StatePlaces> = {}): string =>
  defaultStatePath({
    stateDirectory: '',
    runtimeDirectory: '',
    sessionDirectory: '',
    stateHome: '',
    uid,
    port: 8080,
    own: [path.join(shared, 'first'), path.join(shared, 'second')],
    ...places,
  })

function directory(name: string, mode = 0o700): string {
  const made = path.join(folder, name)
  mkdirSync(made)
  chmodSync(made, mode)
  return made
}

describe('the default path of the state', () => {
  it('is in what systemd gives, then in what the session has, then in a directory of its own', () => {
    const [state, runtime, session] = [directory('state', 0o755), directory('runtime'), directory('session')]
    const all = { stateDirectory: `${state}:/elsewhere`, runtimeDirectory: runtime, sessionDirectory: session }
    expect(choose(all)).toBe(path.join(state, NAME))
    expect(choose({ ...all, stateDirectory: '' })).toBe(path.join(runtime, NAME))
    expect(choose({ sessionDirectory: session })).toBe(path.join(session, NAME))
    expect(choose()).toBe(path.join(shared, 'first', NAME))
  })

  it('passes over what is not there, is open to others, or is someone else’s', () => {
    const open = directory('open', 0o777)
    const mine = directory('mine')
    expect(choose({ sessionDirectory: path.join(folder, 'gone') })).toBe(path.join(shared, 'first', NAME))
    expect(choose({ sessionDirectory: open })).toBe(path.join(shared, 'first', NAME))
    // XDG_RUNTIME_DIR of whoever became this user.
    expect(choose({ sessionDirectory: mine, uid: uid + 1 })).toBe(
      path.join(shared, 'first', `tidegate-${uid + 1}-8080.state`),
    )
  })

  it.each([
    ['a file', () => writeFileSync(path.join(shared, 'first'), '')],
    ['a link', () => symlinkSync(folder, path.join(shared, 'first'))],
    ['a dangling link', () => symlinkSync('nowhere', path.join(shared, 'first'))],
    ['a directory that is open to others', () => mkdirSync(path.join(shared, 'first'), 0o755)],
  ])('is elsewhere where another user has put %s in its place', (_, block) => {
    block()
    expect(choose()).toBe(path.join(shared, 'second', NAME))
  })

  it('is elsewhere where another user has made the directory', () => {
    mkdirSync(path.join(shared, 'first'), 0o700)
    expect(choose({ uid: uid + 1 })).toBe(path.join(shared, 'second', `tidegate-${uid + 1}-8080.state`))
  })

  it('stays where it is once the other user has made room', () => {
    mkdirSync(path.join(shared, 'second'), 0o700)
    writeFileSync(path.join(shared, 'second', NAME), '', { mode: 0o600 })
    expect(choose()).toBe(path.join(shared, 'second', NAME))
  })

  it('changes nothing', () => {
    choose()
    expect(existsSync(path.join(shared, 'first'))).toBe(false)
  })

  it('is the former one where a file of this user is there, and none in the new place', () => {
    const former = path.join(shared, NAME)
    writeFileSync(former, '', { mode: 0o600 })
    expect(choose()).toBe(former)
    mkdirSync(path.join(shared, 'first'), 0o700)
    writeFileSync(path.join(shared, 'first', NAME), '', { mode: 0o600 })
    expect(choose()).toBe(path.join(shared, 'first', NAME))
  })

  it.each([
    ['is open to others', (file: string) => writeFileSync(file, '', { mode: 0o644 })],
    ['is a link', (file: string) => symlinkSync('/etc/passwd', file)],
    ['is a directory', (file: string) => mkdirSync(file)],
  ])('is not the former one where what is there %s', (_, put) => {
    put(path.join(shared, NAME))
    expect(choose()).toBe(path.join(shared, 'first', NAME))
  })
})

describe('the directory of the state', () => {
  it('is made for this user alone, whatever the umask', () => {
    const umask = process.umask(0)
    makeStateDirectory(path.join(shared, 'first', NAME))
    process.umask(umask)
    expect(statSync(path.join(shared, 'first')).mode & 0o777).toBe(0o700)
    makeStateDirectory(path.join(shared, 'first', NAME))
  })

  it('is refused where others could put something into it', () => {
    mkdirSync(path.join(shared, 'first'), 0o700)
    chmodSync(path.join(shared, 'first'), 0o770)
    expect(() => makeStateDirectory(path.join(shared, 'first', NAME))).toThrow(
      /must be a directory of this user, with mode 0700/,
    )
    symlinkSync(folder, path.join(shared, 'link'))
    expect(() => makeStateDirectory(path.join(shared, 'link', NAME))).toThrow(/must be a directory of this user/)
  })

  it('is not made, nor judged, where an operator names it', () => {
    makeStateDirectory(path.join(shared, 'missing', 'x.state'))
    expect(existsSync(path.join(shared, 'missing'))).toBe(false)
    expect(() => makeStateDirectory(path.join(directory('group', 0o775), 'x.state'))).not.toThrow()
  })
})
