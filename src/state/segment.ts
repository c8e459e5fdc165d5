// The segment: one piece of memory that the primary and all workers see, and that outlives them in a file. Opened by the primary,
// attached by workers, divided into sections; what lies in a section belongs to the file named after it. Off the request's way but
// for nowUs.
//
//   header      one page
//                   0 magic          8 bytes  'TIDEGATE'
//                   8 layout         Int32
//                  12 complete       Int32    1, written last: a start that died before is no segment
//                  16 host           16 bytes whose clock and processes it was
//                  32 seed           4 × Int32, random: of the keys' hashes
//                  48 breakersBytes  Float64
//                  56 ratesBytes     Float64
//                  64 checksum       Int32    over the 64 bytes before, complete taken as 0
//                 128 clock record   clock.ts
//                 256 sections       offset and bytes, Float64 each, in the order of SECTIONS; written anew by each start
//   breakers    kept from start to start, as is the next
//   rates
//   health      zeroed by each start, as are the rest: that workers, routes or endpoints change in number costs no bucket
//   workers
//   counters
//   addresses
//
// The file grows or stays; what does not fit is replaced by a new file, never cut while somebody may have it mapped.
import { createHash, randomBytes } from 'node:crypto'
import { lstatSync, openSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { isMainThread } from 'node:worker_threads'
import { type Native, native, nativeProblem } from '../../native/index.js'
import { addressCountsBytes } from './address-counts.js'
import { adoptBreakers, breakerTableBytes } from './breaker-table.js'
import { CLOCK_BYTES, type ClockSource, checksum, SegmentClock, systemClock } from './clock.js'
import { workersBytes } from './counters.js'
import { healthBytes } from './health-table.js'
import { adoptRates } from './rate-restore.js'
import { rateTableBytes } from './rate-slots.js'

export interface SegmentSpec {
  readonly workers: number
  readonly rateLimitKeys: number
  readonly services: number
  readonly endpoints: number
  readonly routes: number
  readonly countersBytesPerWorker: number
  /** Connections are counted by client address; false where nothing is said. */
  readonly countsAddresses?: boolean
}

const SECTIONS = ['breakers', 'rates', 'health', 'workers', 'counters', 'addresses'] as const
type SectionName = (typeof SECTIONS)[number]
export interface Section {
  readonly offset: number
  readonly bytes: number
}

export interface Segment {
  readonly buffer: ArrayBuffer | SharedArrayBuffer
  readonly kind: 'mapped' | 'shared'
  /** What workers inherit; -1 for shared, and in workers. */
  readonly fd: number
  readonly path: string | null
  readonly bytes: number
  /** State of an earlier run was found and kept. */
  readonly restored: boolean
  /** One line for the log: what became of earlier state, and why. */
  readonly notice: string
  /** Four random words, of the keys' hashes. */
  readonly seed: Int32Array
  section(name: SectionName): Section
  /** Whole microseconds since the epoch on the segment's clock (clock.ts): the same in every process, never backwards. */
  nowUs(): number
  /** Primary, every second or so: how far a reboot must not fall behind. */
  touch(): void
}

export interface OpenOptions {
  /** null keeps nothing past the process. */
  readonly path: string | null
  readonly isolation: 'process' | 'thread'
  /** For tests. */
  readonly clock?: ClockSource
  readonly host?: string
}

export type SegmentHandle =
  | { readonly kind: 'mapped'; readonly fd: number; readonly bytes: number }
  | { readonly kind: 'shared'; readonly buffer: SharedArrayBuffer }

export const LAYOUT = 1
const MAGIC = Buffer.from('TIDEGATE', 'latin1')
const PAGE = 4096
const COMPLETE = 3
const CHECKED_BYTES = 64
const CLOCK_OFFSET = 128
const SECTIONS_OFFSET = CLOCK_OFFSET + CLOCK_BYTES

type Layout = Record<SectionName, Section>
type MappedFile = ReturnType<Native['openSegment']>

class Header {
  readonly ints: Int32Array
  readonly floats: Float64Array
  readonly bytes: Uint8Array

  constructor(readonly buffer: ArrayBuffer | SharedArrayBuffer) {
    this.ints = new Int32Array(buffer, 0, PAGE / 4)
    this.floats = new Float64Array(buffer, 0, PAGE / 8)
    this.bytes = new Uint8Array(buffer, 0, PAGE)
  }

  get breakersBytes(): number {
    return this.floats[6] as number
  }

  get ratesBytes(): number {
    return this.floats[7] as number
  }

  /** How far into the file that reaches which outlives a start. */
  get keptBytes(): number {
    return PAGE + wholePages(this.breakersBytes) + wholePages(this.ratesBytes)
  }

  section(name: SectionName): Section {
    const at = SECTIONS_OFFSET / 8 + SECTIONS.indexOf(name) * 2
    return { offset: this.floats[at] as number, bytes: this.floats[at + 1] as number }
  }

  /** Why earlier state cannot be used, or '' where it can. */
  misfit(host: Buffer, fileBytes: number): string {
    if (this.bytes.subarray(0, PAGE).every((byte) => byte === 0)) return 'the start that made it did not finish'
    if (!MAGIC.equals(this.bytes.subarray(0, 8))) return 'its header is damaged'
    if (this.ints[2] !== LAYOUT) return `written with layout ${this.ints[2]}, this is ${LAYOUT}`
    if (this.ints[COMPLETE] !== 1) return 'the start that made it did not finish'
    // Mapped beyond the end of the file, the first touch would be a SIGBUS.
    if (this.ints[CHECKED_BYTES / 4] !== this.checksum() || !(this.keptBytes <= fileBytes))
      return 'its header is damaged'
    if (!host.equals(this.bytes.subarray(16, 32))) return 'written on another host'
    return ''
  }

  write(host: Buffer, seed: Uint8Array, breakersBytes: number, ratesBytes: number): void {
    this.bytes.set(MAGIC, 0)
    this.ints[2] = LAYOUT
    this.bytes.set(host, 16)
    this.bytes.set(seed, 32)
    this.floats[6] = breakersBytes
    this.floats[7] = ratesBytes
    this.ints[CHECKED_BYTES / 4] = this.checksum()
  }

  private checksum(): number {
    const copy = Buffer.from(this.bytes.subarray(0, CHECKED_BYTES))
    copy.fill(0, COMPLETE * 4, COMPLETE * 4 + 4)
    return checksum(copy)
  }
}

class OpenSegment implements Segment {
  readonly bytes: number
  readonly seed: Int32Array
  private readonly header: Header
  private readonly clock: SegmentClock

  constructor(
    readonly buffer: ArrayBuffer | SharedArrayBuffer,
    readonly kind: 'mapped' | 'shared',
    readonly fd: number,
    readonly path: string | null,
    source: ClockSource,
    public notice: string,
    readonly restored = false,
  ) {
    this.bytes = buffer.byteLength
    this.header = new Header(buffer)
    this.seed = this.header.ints.subarray(8, 12)
    this.clock = new SegmentClock(buffer, CLOCK_OFFSET, source)
  }

  section(name: SectionName): Section {
    return this.header.section(name)
  }

  nowUs(): number {
    return this.clock.nowUs()
  }

  touch(): void {
    this.clock.touch()
  }
}

/**
 * Primary. Throws what the native addon throws (ELOCKED where another gateway has the file), and an Error where worker processes are
 * asked for without the addon or the path holds something that cannot be a segment.
 */
export function openSegment(spec: SegmentSpec, options: OpenOptions): Segment {
  const sizes: Record<SectionName, number> = {
    breakers: breakerTableBytes(spec.services),
    rates: rateTableBytes(spec.rateLimitKeys),
    health: healthBytes(spec.endpoints),
    workers: workersBytes(spec.workers),
    counters: Math.max(64, spec.countersBytesPerWorker * spec.workers),
    addresses: addressCountsBytes(spec.workers, spec.countsAddresses === true),
  }
  let bytes = PAGE
  const layout = {} as Layout
  for (const name of SECTIONS) {
    layout[name] = { offset: bytes, bytes: sizes[name] }
    bytes += wholePages(sizes[name])
  }
  const source = options.clock ?? systemClock()
  const host = hostId(options.host)
  const { path } = options

  if (native === null || (path === null && options.isolation === 'thread')) {
    if (options.isolation === 'process') throw new Error(`worker processes need the native addon: ${nativeProblem}`)
    const buffer = new SharedArrayBuffer(bytes)
    writeNew(buffer, host, layout, source, null)
    const why = path === null ? '' : `: ${nativeProblem}`
    return new OpenSegment(buffer, 'shared', -1, null, source, `state is kept in memory only${why}`)
  }
  if (path !== null) refuseForeign(path)
  const file = native.openSegment(path, bytes)
  if (path === null) return fresh(file, 'state is kept in memory only')
  if (file.created) return fresh(file, `fresh state in ${path}`)
  const header = new Header(file.buffer)
  const problem = header.misfit(host, file.bytes)
  if (problem !== '') return discarded(problem)
  if (header.breakersBytes !== sizes.breakers || header.ratesBytes !== sizes.rates) return resized(native, path)

  writeSections(header, layout)
  new SegmentClock(file.buffer, CLOCK_OFFSET, source).start()
  const segment = new OpenSegment(file.buffer, 'mapped', file.fd, path, source, '', true)
  segment.notice = `state restored from ${path}: ${takeOver(segment, segment)}`
  return segment

  function fresh(made: MappedFile, notice: string): Segment {
    writeNew(made.buffer, host, layout, source, null)
    return new OpenSegment(made.buffer, 'mapped', made.fd, path, source, notice)
  }

  function discarded(why: string): Segment {
    return fresh(native!.replaceSegment(file.fd, path!, bytes), `state in ${path} discarded: ${why}`)
  }

  /** Other table sizes: a new file, into which what is alive in the old one is taken over. */
  function resized(addon: Native, at: string): Segment {
    const extent = header.keptBytes
    let old: MappedFile = file
    if (extent > old.buffer.byteLength) {
      addon.closeFd(old.fd)
      old = addon.openSegment(at, extent)
    }
    new SegmentClock(old.buffer, CLOCK_OFFSET, source).start()
    const before = new OpenSegment(old.buffer, 'mapped', -1, at, source, '')
    const made = addon.replaceSegment(old.fd, at, bytes)
    writeNew(made.buffer, host, layout, source, new Header(old.buffer))
    const after = new OpenSegment(made.buffer, 'mapped', made.fd, at, source, '', true)
    after.notice = `state restored from ${at}: ${takeOver(before, after)}; tables resized`
    return after
  }
}

/** What a worker needs to see the same segment. A forked one replaces fd with what it inherited it as. */
export function segmentHandle(segment: Segment): SegmentHandle {
  const { kind, buffer, fd, bytes } = segment
  if (kind === 'shared') return { kind, buffer: buffer as SharedArrayBuffer }
  return { kind, fd, bytes }
}

/** Worker. In a process of its own the descriptor is used up; a thread shares the primary's and leaves it open. */
export function attachSegment(handle: SegmentHandle, source: ClockSource = systemClock()): Segment {
  if (handle.kind === 'shared') return new OpenSegment(handle.buffer, 'shared', -1, null, source, '')
  if (native === null) throw new Error(`a mapped segment needs the native addon: ${nativeProblem}`)
  const fd = isMainThread ? handle.fd : openSync(`/proc/self/fd/${handle.fd}`, 'r+')
  return new OpenSegment(native.attachSegment(fd, handle.bytes), 'mapped', -1, null, source, '')
}

function takeOver(before: Segment, after: Segment): string {
  return `${adoptRates(before, after)}, ${adoptBreakers(before, after)}`
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE) * PAGE
}

/** Segments are whole pages. Whatever else is at the path is somebody's file, and neither grown nor replaced. */
function refuseForeign(path: string): void {
  const status = lstatSync(path, { throwIfNoEntry: false })
  if (status?.isFile() && status.size % PAGE !== 0)
    throw new Error(`${path} is not a Tidegate segment: choose another path`)
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

/** Into zeroed memory; seed and clock from an earlier segment, where there is one. */
function writeNew(
  buffer: ArrayBuffer | SharedArrayBuffer,
  host: Buffer,
  layout: Layout,
  source: ClockSource,
  earlier: Header | null,
): void {
  const header = new Header(buffer)
  const seed = earlier === null ? randomBytes(16) : earlier.bytes.slice(32, 48)
  header.write(host, seed, layout.breakers.bytes, layout.rates.bytes)
  const clock = header.bytes.subarray(CLOCK_OFFSET, CLOCK_OFFSET + CLOCK_BYTES)
  if (earlier !== null) clock.set(earlier.bytes.subarray(CLOCK_OFFSET, CLOCK_OFFSET + CLOCK_BYTES))
  new SegmentClock(buffer, CLOCK_OFFSET, source).start()
  writeSections(header, layout)
  Atomics.store(header.ints, COMPLETE, 1)
}

function writeSections(header: Header, layout: Layout): void {
  SECTIONS.forEach((name, index) => {
    header.floats[SECTIONS_OFFSET / 8 + index * 2] = layout[name].offset
    header.floats[SECTIONS_OFFSET / 8 + index * 2 + 1] = layout[name].bytes
  })
  new Uint8Array(header.buffer, layout.health.offset).fill(0)
}
