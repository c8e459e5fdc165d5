// The segment: memory that the primary and all workers share. The primary opens it (open-segment.ts), workers attach to
// it, and each table gets the section that it has registered (sections.ts). Knows no table. Only nowUs runs per
// request.
//
//   a file, kept from start to start     memory without a file, new with each start
//   ┌──────────────────────────┐         ┌──────────────────────────┐
//   │ header      header.ts    │         │ 0 clock offset, Float64  │
//   │ copy of the header       │         ├──────────────────────────┤
//   ├──────────────────────────┤         │ a section of each table  │
//   │ a section of each table  │         │ that is not kept         │
//   │ that is kept             │         └──────────────────────────┘
//   ├──────────────────────────┤
//   │ end                      │
//   └──────────────────────────┘
//
// The primary holds a lock on the file, so that two gateways cannot have it at once. A file whose sections have other
// names or sizes is replaced by a new one, and each table takes over what is alive in the old one. A file is never cut
// short, since some process may still have it mapped.
//
// Damage costs the rows that it hit. Processes that run read neither header nor copy: the primary tells each worker
// where the sections are, and the clock's offset lies in the memory without a file. If somebody cuts the file short
// while it is mapped, the addon gives it its length back (native/src/mappings.cc); the mappings then hold zeros, which
// are empty rows. touch() notices within a second.
//
// The second memory begins empty with each start, and no other start ever sees it: workers that outlive their primary
// go on counting in theirs, and a change in the number of workers, routes or endpoints costs no limit what it has
// counted.
import { openSync } from 'node:fs'
import { isMainThread } from 'node:worker_threads'
import { native, nativeProblem } from '../../native/index.js'
import { type ClockSource, type SegmentClock, systemClock } from './clock.js'
import { HeaderGuard, type Place } from './header.js'

/** What a table registers to get a section. */
interface Definition<Spec> {
  /** At most 24 bytes. A kept section is found by it in the file of an earlier run. */
  readonly name: string
  /** How large it is for these numbers. It begins as zeros, on a page of its own. */
  bytes(spec: Spec): number
  /**
   * Primary, when a worker is gone and before another gets its index: gives back what the worker held. A kept section
   * knows the worker by its owner index (owners.ts), which workers of an earlier primary have too; the others know it
   * by its slot.
   */
  release?(segment: Segment, index: number): void
}

/** In the file, from start to start. */
export interface KeptSection<Spec> extends Definition<Spec> {
  readonly kept: true
  /**
   * Primary, at start, where an earlier run has left a section of this name. `before` and `after` are one segment where
   * the section stays where it is; otherwise the one in `after` is empty, and may have another size. Drops what no run
   * can have written.
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

export type Memory = Section['buffer']

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
  /**
   * Whole microseconds since the epoch on the segment's clock (clock.ts): the same in every process, never backwards.
   */
  nowUs(): number
  /**
   * Primary, every second or so: notes the time, which a reboot must not fall behind. False: somebody has cut or
   * overwritten the file. Its length is as it was, header and copy are whole again, and what was lost of the sections
   * is zeros.
   */
  touch(): boolean
}

interface Places {
  readonly kept: readonly Place[]
  readonly live: readonly Place[]
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

export interface Parts
  extends Pick<Segment, 'buffer' | 'live' | 'kind' | 'fd' | 'liveFd' | 'path' | 'seed' | 'places'> {
  readonly source: ClockSource
  /** The primary's; null where the clock is only read. */
  readonly clock: SegmentClock | null
}

export class OpenSegment implements Segment {
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
