// The binaries of uWebSockets.js are what SECURITY.md says they are.
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { uwsVersion } from '../../src/downstream/uws/load.js'

const root = path.resolve(import.meta.dirname, '../..')
const listed = new Map(
  Array.from(
    readFileSync(path.join(root, 'SECURITY.md'), 'utf8').matchAll(
      /^\| `(@uwsjs\/\S+)` \| (\S+) \| `([0-9a-f]{64})` \|$/gm,
    ),
    ([, name, version, hash]) => [`${name}@${version}`, hash!],
  ),
)

/** Beside each other, or below the one of the two packages that wants another version than the first. */
function installed(): Map<string, string> {
  const found = new Map<string, string>()
  for (const above of ['', 'uWebSockets.js/node_modules/', 'uWebSockets.js-next/node_modules/']) {
    const folder = path.join(root, 'node_modules', above, '@uwsjs')
    let names: string[] = []
    try {
      names = readdirSync(folder)
    } catch {
      // Nothing is installed there.
    }
    for (const name of names) {
      const { version } = JSON.parse(readFileSync(path.join(folder, name, 'package.json'), 'utf8')) as {
        version: string
      }
      const bytes = readFileSync(path.join(folder, name, 'uws.node'))
      found.set(`@uwsjs/${name}@${version}`, createHash('sha256').update(bytes).digest('hex'))
    }
  }
  return found
}

describe('uWebSockets.js', () => {
  const loaded = `@uwsjs/${process.platform}-${process.arch}-${process.versions.node.split('.')[0]}@${uwsVersion}`

  it('as it is loaded here is a binary that SECURITY.md lists, byte for byte', (context) => {
    if (process.arch !== 'x64') context.skip(`SECURITY.md lists no binaries for ${process.arch}`)
    expect(listed.get(loaded)).toMatch(/^[0-9a-f]{64}$/)
    expect(installed().get(loaded)).toBe(listed.get(loaded))
  })

  it('as it is installed here is all listed', (context) => {
    if (process.arch !== 'x64') context.skip(`SECURITY.md lists no binaries for ${process.arch}`)
    for (const [name, hash] of installed()) expect(listed.get(name), name).toBe(hash)
  })

  it('is listed in every version that package.json names, and in no other', () => {
    const { optionalDependencies } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as {
      optionalDependencies: Record<string, string>
    }
    const named = Object.values(optionalDependencies).flatMap((from) => /^npm:@uwsjs\/core@(.+)$/.exec(from)?.[1] ?? [])
    expect(new Set(Array.from(listed.keys(), (name) => name.split('@').at(-1)))).toEqual(new Set(named))
  })
})
