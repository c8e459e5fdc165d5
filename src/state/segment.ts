// The segment: memory that the primary and all workers share. The primary opens it, workers attach to it, and each table gets the section
// that it has registered (sections.ts). Knows no table. Only nowUs runs per request.
//
//   file, mapped by all              kept from start to start      memory without a file             new with each start
//   ┌──────────────────────────┐                                   ┌──────────────────────────┐
//   │ header      header.ts    │                                   │ 0 clock offset, Float64  │
//   │ copy of the header       │                                   ├──────────────────────────┤
//   ├──────────────────────────┤                                   │ a section of each table  │
//   │ a section of each table  │                                   │ that is not kept         │
//   │ that is kept             │                                   └──────────────────────────┘
//   ├──────────────────────────┤
//   │ end                      │
//   └──────────────────────────┘
//
// The primary holds a lock on the file, so that two gateways cannot have it at once. A file whose sections have other names or sizes is
// replaced by a new one, and each table takes over what is alive in the old one. A file is never cut short, since some process may still
// have it mapped.
//
// Damage costs the rows that it hit. Processes that run read neither header nor copy: the primary tells each worker where the sections are,
// and the clock's offset lies in the memory without a file. If somebody cuts the file short while it is mapped, the addon gives it its
// length back (native/src/mappings.cc); the mappings then hold zeros, which are empty rows. touch() notices within a second.
//
// The second memory begins empty with each start, and no other start ever sees it: workers that outlive their primary go on counting in
// theirs, and a change in the number of workers, routes or endpoints costs no limit what it has counted.
import { createHash, randomFillSync } from 'node:crypto'
import { openSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { isMainThread } from 'node:worker_threads'
import { type Native, native, nativeProblem } from '../../native/index.js'
import { CLOCK_BYTES, type ClockSource, SegmentClock, systemClock } from './clock.js'
import {
  CLOCK,
  Header,
  HeaderGuard,
  layOut,
  layOutFile,
  MAGIC,
  markEnd,
  mendHeader,
  PAGE,
  type Place,
} from './header.js'

/** What a table registers to get a section. */
interface Definition<Spec> {
  /** At most 24 bytes. A kept section is found by it in the file of an earlier run. */
  readonly name: string
  /** How large it is for these numbers. It begins as zeros, on a page of its own. */
  bytes(spec: Spec): number
  /**
   * Primary, when a worker is gone and before another gets its index: gives back what the worker held. A kept section knows the worker by its
   * owner index (owners.ts), which workers of an earlier primary have too; the others know it by its slot.
   */
  release?(segment: Segment, index: number): void
}

/** In the file, from start to start. */
export interface KeptSection<Spec> extends Definition<Spec> {
  readonly kept: true
  /**
   * Primary, at start, where an earlier run has left a section of this name. `before` and `after` are one segment where the section stays where
   * it is; otherwise the one in `after` is empty, and may have another size. Drops what no run can have written.
   * @param wallSeconds the wall clock's
   * @returns what the log says of it, or ''
   */
  adopt(before: Segment, after: Segment, wallSeconds: number): string
}

/** Begins empty with each start of the primary. */
export interface LiveSection<Spec> extends Definition<Spec> {
  readonly kept: false
}

export type SectionDefinition<Spec = never> = KeptSection<Spec> | LiveSection<Spec>

/** The numbers that these sections want to know, all together. */
export type SpecOf<Defined extends SectionDefinition> = (
  Defined extends { bytes(spec: infer Spec): number }
    ? (spec: Spec) => void
    : never
) extends (spec: infer All) => void
  ? All
  : never

/** Where a table's memory is. */
export interface Section {
  readonly buffer: ArrayBuffer | SharedArrayBuffer
  readonly offset: number
  readonly bytes: number
}

type Memory = Section['buffer']

export interface Segment {
  /** What is kept. */
  readonly buffer: Memory
  /** What begins empty with each start. */
  readonly live: Memory
  readonly kind: 'mapped' | 'shared'
  /** What workers inherit, of both; -1 for shared, and in workers. */
  readonly fd: number
  readonly liveFd: number
  readonly path: string | null
  readonly bytes: number
  /** State of an earlier run was found and kept. */
  readonly restored: boolean
  /** One line for the log: what became of earlier state, and why. */
  readonly notice: string
  /** Four random words, of the keys' hashes. */
  readonly seed: Int32Array
  /** Of the sections, in either memory. */
  readonly places: Places
  /** Throws where no table has registered the name. */
  section(name: string): Section
  /** Whole microseconds since the epoch on the segment's clock (clock.ts): the same in every process, never backwards. */
  nowUs(): number
  /**
   * Primary, every second or so: notes the time, which a reboot must not fall behind. False: somebody has cut or overwritten the file. Its length
   * is as it was, header and copy are whole again, and what was lost of the sections is zeros.
   */
  touch(): boolean
}

interface Places {
  readonly kept: readonly Place[]
  readonly live: readonly Place[]
}

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

/** What the primary tells a worker, so that it sees the same segment. */
export type SegmentHandle = { readonly seed: readonly number[]; readonly places: Places } & (
  | {
      readonly kind: 'mapped'
      readonly fd: number
      readonly bytes: number
      readonly liveFd: number
      readonly liveBytes: number
    }
  | { readonly kind: 'shared'; readonly buffer: SharedArrayBuffer; readonly live: SharedArrayBuffer }
)

type MappedFile = ReturnType<Native['openSegment']>

interface Parts extends Pick<Segment, 'buffer' | 'live' | 'kind' | 'fd' | 'liveFd' | 'path' | 'seed' | 'places'> {
  readonly source: ClockSource
  /** The primary's; null where the clock is only read. */
  readonly clock: SegmentClock | null
}

class OpenSegment implements Segment {
  readonly buffer: Memory
  readonly live: Memory
  readonly kind: 'mapped' | 'shared'
  readonly fd: number
  readonly liveFd: number
  readonly path: string | null
  readonly bytes: number
  readonly seed: Int32Array
  readonly places: Places
  restored = false
  notice = ''
  private readonly sections = new Map<string, Section>()
  private readonly source: ClockSource
  private readonly clock: SegmentClock | null
  private readonly guard: HeaderGuard | null
  /** The clock's offset is all that it is read for. */
  private readonly liveFloats: Float64Array

  constructor(parts: Parts) {
    this.buffer = parts.buffer
    this.live = parts.live
    this.kind = parts.kind
    this.fd = parts.fd
    this.liveFd = parts.liveFd
    this.path = parts.path
    this.bytes = parts.buffer.byteLength
    this.seed = parts.seed
    this.places = parts.places
    this.source = parts.source
    this.clock = parts.clock
    this.guard = parts.clock === null ? null : new HeaderGuard(parts.buffer)
    this.liveFloats = new Float64Array(parts.live, 0, 1)
    if (parts.clock !== null) this.liveFloats[0] = parts.clock.offsetUs
    for (const { name, offset, bytes } of parts.places.kept)
      this.sections.set(name, { buffer: parts.buffer, offset, bytes })
    for (const { name, offset, bytes } of parts.places.live)
      this.sections.set(name, { buffer: parts.live, offset, bytes })
  }

  section(name: string): Section {
    const section = this.sections.get(name)
    if (section === undefined)
      throw new Error(`the segment has no section ${name}: list its table in state/sections.ts`)
    return section
  }

  /** Runs per request. An aligned double neither tears nor goes backwards: only the primary moves it, and only on. */
  nowUs(): number {
    return Math.floor(this.source.monotonicUs() + (this.liveFloats[0] as number))
  }

  touch(): boolean {
    const { clock, guard } = this
    if (clock === null || guard === null) return true
    clock.touch()
    this.liveFloats[0] = clock.offsetUs
    return guard.restore()
  }
}

/**
 * Primary. Throws what the native addon throws (ELOCKED where another gateway has the file), and an Error where worker processes are
 * asked for without the addon or the path holds something that cannot be a segment.
 */
export function openSegment<Defined extends SectionDefinition>(
  definitions: readonly Defined[],
  spec: SpecOf<Defined>,
  options: OpenOptions,
): Segment {
  const sized = definitions.map((one) => ({ name: one.name, kept: one.kept, bytes: one.bytes(spec as never) }))
  const twice = sized.find(({ name }, index) => sized.findIndex((other) => other.name === name) !== index)
  if (twice !== undefined) throw new Error(`two tables have registered a section ${twice.name}`)
  const { places: kept, bytes } = layOutFile(sized.filter((one) => one.kept))
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

/** @param as the descriptors in the worker: a forked one inherits them, a thread shares the primary's */
export function segmentHandle(segment: Segment, as: Pick<Segment, 'fd' | 'liveFd'> = segment): SegmentHandle {
  const { kind, buffer, live, bytes, places } = segment
  const { fd, liveFd } = as
  const seed = [...segment.seed]
  if (kind === 'shared')
    return { kind, seed, places, buffer: buffer as SharedArrayBuffer, live: live as SharedArrayBuffer }
  return { kind, seed, places, fd, bytes, liveFd, liveBytes: live.byteLength }
}

/** Worker. In a process of its own the descriptors are used up; a thread shares the primary's and leaves them open. */
export function attachSegment(handle: SegmentHandle, source: ClockSource = systemClock()): Segment {
  const { kind, places } = handle
  const parts = {
    kind,
    places,
    seed: Int32Array.from(handle.seed),
    fd: -1,
    liveFd: -1,
    path: null,
    source,
    clock: null,
  }
  if (handle.kind === 'shared') return new OpenSegment({ ...parts, buffer: handle.buffer, live: handle.live })
  if (native === null) throw new Error(`a mapped segment needs the native addon: ${nativeProblem}`)
  const own = (fd: number): number => (isMainThread ? fd : openSync(`/proc/self/fd/${fd}`, 'r+'))
  const live = native.attachSegment(own(handle.liveFd), handle.liveBytes)
  return new OpenSegment({ ...parts, buffer: native.attachSegment(own(handle.fd), handle.bytes), live })
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
