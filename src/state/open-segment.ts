// How the primary gets its segment: a new one, or that of an earlier run, whose tables it lets take over what they find
// there. Runs at start alone. Knows no table but by what it has registered.
//
// The file is made with mode 0600 and never followed through a link. One that does not fit (another layout, another
// host, header and copy damaged) is replaced by a new one. A file that is neither empty nor begins with the magic
// belongs to somebody else: the start ends with an error that names it (native/src/segment.cc).
import { createHash, randomFillSync } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { type Native, native, nativeProblem } from '../../native/index.js'
import { CLOCK_BYTES, type ClockSource, SegmentClock, systemClock } from './clock.js'
import { CLOCK, Header, layOut, layOutFile, MAGIC, markEnd, mendHeader, PAGE, type Place } from './header.js'
import { type Memory, OpenSegment, type Parts, type SectionDefinition, type Segment, type SpecOf } from './segment.js'

type MappedFile = ReturnType<Native['openSegment']>

export interface OpenOptions {
  /** null keeps nothing past the process. */
  readonly path: string | null
  readonly isolation: 'process' | 'thread'
  /** The file's descriptor with its lock, from a gateway that is taken over. */
  readonly held?: number | undefined
  /** For tests. */
  readonly clock?: ClockSource
  readonly host?: string
}

/**
 * Primary. Throws what the native addon throws (ELOCKED where another gateway has the file), and an Error where worker
 * processes are asked for without the addon or the path holds something that cannot be a segment.
 */
export function openSegment<Defined extends SectionDefinition>(
  definitions: readonly Defined[],
  spec: SpecOf<Defined>,
  options: OpenOptions,
): Segment {
  const sized = definitions.map((one) => ({ name: one.name, kept: one.kept, bytes: one.bytes(spec as never) }))
  const twice = sized.find(({ name }, index) => sized.findIndex((other) => other.name === name) !== index)
  if (twice !== undefined) throw new Error(`two tables have registered a section ${twice.name}`)
  // By name, so that the order of the list means nothing to the file.
  const inFile = sized.filter((one) => one.kept).sort((a, b) => (a.name < b.name ? -1 : 1))
  const { places: kept, bytes } = layOutFile(inFile)
  const { places: live, end: liveBytes } = layOut(
    sized.filter((one) => !one.kept),
    PAGE,
  )
  const places = { kept, live }
  const source = options.clock ?? systemClock()
  const host = hostId(options.host)
  const { path } = options

  if (native === null || (path === null && options.isolation === 'thread')) {
    if (options.isolation === 'process') throw new Error(`worker processes need the native addon: ${nativeProblem}`)
    const memory = { buffer: new SharedArrayBuffer(bytes), live: new SharedArrayBuffer(liveBytes) }
    const clock = writeNew(memory.buffer, null)
    const why = path === null ? '' : `: ${nativeProblem}`
    const segment = opened({ ...memory, kind: 'shared', fd: -1, liveFd: -1, clock }, null)
    segment.notice = `state is kept in memory only${why}`
    return segment
  }
  const magic = MAGIC.toString('latin1')
  const file = native.openSegment(path, bytes, magic, options.held)
  if (path === null) return fresh(file, 'state is kept in memory only')
  if (file.created) return fresh(file, `fresh state in ${path}`)
  const header = new Header(file.buffer)
  const mended = mendHeader(file.buffer, file.bytes, host)
  const problem = header.misfit(host, file.bytes)
  if (problem !== '') return fresh(replaced(file.fd), `state in ${path} discarded: ${problem}`)
  return restored(native, path)

  function opened(
    parts: Pick<Parts, 'buffer' | 'live' | 'kind' | 'fd' | 'liveFd' | 'clock'>,
    at: string | null,
  ): OpenSegment {
    return new OpenSegment({ ...parts, path: at, seed: new Header(parts.buffer).seed, places, source })
  }

  function mapped(made: MappedFile, memory: MappedFile, clock: SegmentClock): OpenSegment {
    const { fd: liveFd, buffer: live } = memory
    return opened({ buffer: made.buffer, fd: made.fd, live, liveFd, kind: 'mapped', clock }, path)
  }

  function fresh(made: MappedFile, notice: string): Segment {
    const segment = mapped(made, native!.openSegment(null, liveBytes), writeNew(made.buffer, null))
    segment.notice = notice
    return segment
  }

  /** On an error the lock ends with the start. */
  function replaced(fd: number): MappedFile {
    try {
      return native!.replaceSegment(fd, path!, bytes, magic)
    } catch (error) {
      native!.closeFd(fd)
      throw error
    }
  }

  function restored(addon: Native, at: string): Segment {
    const former = header.file
    const memory = addon.openSegment(null, liveBytes)
    const isSame = samePlaces(former.places, kept)
    let after: OpenSegment
    let before: OpenSegment
    if (isSame && !header.isFormer) {
      after = mapped(file, memory, new SegmentClock(file.buffer, CLOCK, source).start())
      before = after
      markEnd(file.buffer)
    } else {
      // A new file, into which the tables take over what is alive in the old one.
      const old = former.bytes > file.buffer.byteLength ? addon.openSegment(at, former.bytes, magic, file.fd) : file
      const parts = { buffer: old.buffer, fd: -1, live: memory.buffer, liveFd: -1, kind: 'mapped', path: at } as const
      const clock = new SegmentClock(old.buffer, CLOCK, source).start()
      before = new OpenSegment({ ...parts, seed: header.seed, places: { kept: former.places, live }, source, clock })
      const made = replaced(old.fd)
      after = mapped(made, memory, writeNew(made.buffer, old.buffer))
    }
    const changes = header.isFormer ? '; rewritten in a new layout' : isSame ? '' : '; tables resized'
    after.restored = true
    after.notice = `state restored from ${at}: ${adoptAll(before, after)}${changes}${mended}`
    return after
  }

  function adoptAll(before: Segment, after: Segment): string {
    const wallSeconds = Math.floor(source.wallUs() / 1e6)
    const said = definitions.map((one: SectionDefinition) => {
      const isThere = one.kept && before.places.kept.some(({ name }) => name === one.name)
      return isThere ? one.adopt(before, after, wallSeconds) : ''
    })
    return said.filter((text) => text !== '').join(', ')
  }

  /** Into zeroed memory; seed and clock are those of an earlier segment, where there is one. */
  function writeNew(buffer: Memory, earlier: Memory | null): SegmentClock {
    const made = new Header(buffer)
    const seed = earlier === null ? randomFillSync(new Int32Array(4)) : new Header(earlier).seed
    made.write(host, seed, kept)
    if (earlier !== null) new Uint8Array(buffer).set(new Uint8Array(earlier, CLOCK, CLOCK_BYTES), CLOCK)
    const clock = new SegmentClock(buffer, CLOCK, source).start()
    markEnd(buffer)
    made.complete()
    new Header(buffer, PAGE).copyFrom(made)
    return clock
  }
}

/** Whether these sections lie where those do. */
function samePlaces(some: readonly Place[], others: readonly Place[]): boolean {
  return (
    some.length === others.length &&
    some.every(({ name, bytes }, index) => name === others[index]?.name && bytes === others[index]?.bytes)
  )
}

function hostId(name: string | undefined): Buffer {
  let host = name ?? ''
  for (const file of ['/etc/machine-id', '/var/lib/dbus/machine-id']) {
    if (host !== '') break
    try {
      host = readFileSync(file, 'latin1').trim()
    } catch {
      // Not every system has one.
    }
  }
  return createHash('sha256')
    .update(host || hostname())
    .digest()
    .subarray(0, 16)
}
