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
//                  64 replaysBytes   Float64
//                  72 checksum       Int32    over the 72 bytes before, complete taken as 0
//                 128 clock record   clock.ts
//   copy        one page: the header's first 76 bytes again. Where one of the two is damaged, the other tells what lies where
//   breakers    kept from start to start, as are the next two
//   rates
//   replays
//   end         one page that begins with the magic: gone where somebody has cut the file short
//
// Processes that run read neither header nor copy: where the sections are, the seed and the clock they have elsewhere. Whatever happens to the
// file costs no more than what lay there.
//
// What begins empty with each start lies in memory of its own, which no other start ever sees: workers that outlive their primary go
// on counting there, and that workers, routes or endpoints change in number costs no bucket.
//
//   first page  where the sections are, in the order of LIVE; at 256 the clock's offset, Float64
//   health, workers, counters, addresses
//
// The file grows or stays; what does not fit is replaced by a new file, never cut while somebody may have it mapped.
import { createHash, randomBytes } from 'node:crypto'
import { openSync, readFileSync } from 'node:fs'
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
import { adoptReplays, replayTableBytes } from './replay-table.js'

export interface SegmentSpec {
  readonly workers: number
  readonly rateLimitKeys: number
  /** Accepted signatures to remember; none where no route wants it. */
  readonly replayKeys?: number
  readonly services: number
  /** Room for these: what a reload adds must fit. */
  readonly endpoints: number
  readonly routes: number
  readonly countersBytesPerWorker: number
  /** Connections are counted by client address; false where nothing is said. */
  readonly countsAddresses?: boolean
}

const KEPT = ['breakers', 'rates', 'replays'] as const
const LIVE = ['health', 'workers', 'counters', 'addresses'] as const
type KeptName = (typeof KEPT)[number]
type LiveName = (typeof LIVE)[number]
type SectionName = KeptName | LiveName
export interface Section {
  readonly buffer: ArrayBuffer | SharedArrayBuffer
  readonly offset: number
  readonly bytes: number
}

export interface Segment {
  /** What is kept. */
  readonly buffer: ArrayBuffer | SharedArrayBuffer
  /** What begins empty with each start. */
  readonly live: ArrayBuffer | SharedArrayBuffer
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
  section(name: SectionName): Section
  /** Whole microseconds since the epoch on the segment's clock (clock.ts): the same in every process, never backwards. */
  nowUs(): number
  /**
   * Primary, every second or so: how far a reboot must not fall behind. False: somebody has cut or overwritten the file. Its length is as it
   * was, header and copy are whole again, and what was lost of the sections is zeros.
   */
  touch(): boolean
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

export type SegmentHandle =
  | {
      readonly kind: 'mapped'
      readonly fd: number
      readonly bytes: number
      readonly liveFd: number
      readonly liveBytes: number
    }
  | { readonly kind: 'shared'; readonly buffer: SharedArrayBuffer; readonly live: SharedArrayBuffer }

export const LAYOUT = 4
const MAGIC = Buffer.from('TIDEGATE', 'latin1')
const PAGE = 4096
const COMPLETE = 3
const CHECKED_BYTES = 72
/** Those and the checksum. */
const COPIED_BYTES = 76
const CLOCK_OFFSET = 128
/** In live memory, in Float64. */
const LIVE_CLOCK = 32

interface Place {
  readonly offset: number
  readonly bytes: number
}
type Layout<Name extends SectionName> = Record<Name, Place>
type MappedFile = ReturnType<Native['openSegment']>

/** Memory of each start's own, and the descriptor that workers inherit. */
interface Live {
  readonly fd: number
  readonly buffer: ArrayBuffer | SharedArrayBuffer
}

/** Sections on pages of their own from `start` on. */
function layOut<Name extends SectionName>(
  names: readonly Name[],
  sizes: Record<Name, number>,
  start = PAGE,
): { layout: Layout<Name>; bytes: number } {
  let bytes = start
  const layout = {} as Layout<Name>
  for (const name of names) {
    layout[name] = { offset: bytes, bytes: sizes[name] }
    bytes += wholePages(sizes[name])
  }
  return { layout, bytes }
}

function readPlace(floats: Float64Array, at: number): Place {
  return { offset: floats[at] as number, bytes: floats[at + 1] as number }
}

function writePlaces(floats: Float64Array, at: number, places: readonly Place[]): void {
  places.forEach(({ offset, bytes }, index) => {
    floats[at + index * 2] = offset
    floats[at + index * 2 + 1] = bytes
  })
}

/** What is kept, in a file of these tables. */
function layOutKept(sizes: Record<KeptName, number>): { layout: Layout<KeptName>; bytes: number } {
  const { layout, bytes } = layOut(KEPT, sizes, 2 * PAGE)
  return { layout, bytes: bytes + PAGE }
}

class Header {
  readonly ints: Int32Array
  readonly floats: Float64Array
  readonly bytes: Uint8Array

  /** @param at the header, or its copy */
  constructor(
    readonly buffer: ArrayBuffer | SharedArrayBuffer,
    at = 0,
  ) {
    this.ints = new Int32Array(buffer, at, PAGE / 4)
    this.floats = new Float64Array(buffer, at, PAGE / 8)
    this.bytes = new Uint8Array(buffer, at, PAGE)
  }

  /** What the file is laid out for. */
  get kept(): { layout: Layout<KeptName>; bytes: number } {
    const [breakers, rates, replays] = this.floats.subarray(6, 9) as unknown as [number, number, number]
    return layOutKept({ breakers, rates, replays })
  }

  /** Why earlier state cannot be used, or '' where it can. */
  misfit(host: Buffer, fileBytes: number): string {
    if (!MAGIC.equals(this.bytes.subarray(0, 8))) return 'its header is damaged'
    if (this.ints[COMPLETE] !== 1) return 'the start that made it did not finish'
    if (this.ints[2] !== LAYOUT) return `written with layout ${this.ints[2]}, this is ${LAYOUT}`
    // Mapped beyond the end of the file, the first touch would be a SIGBUS.
    if (this.ints[CHECKED_BYTES / 4] !== this.checksum() || !(this.kept.bytes <= fileBytes))
      return 'its header is damaged'
    if (!host.equals(this.bytes.subarray(16, 32))) return 'written on another host'
    return ''
  }

  write(host: Buffer, seed: Uint8Array, { breakers, rates, replays }: Layout<KeptName>): void {
    this.bytes.set(MAGIC, 0)
    this.ints[2] = LAYOUT
    this.bytes.set(host, 16)
    this.bytes.set(seed, 32)
    this.floats[6] = breakers.bytes
    this.floats[7] = rates.bytes
    this.floats[8] = replays.bytes
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
  readonly live: ArrayBuffer | SharedArrayBuffer
  readonly liveFd: number
  readonly seed: Int32Array
  private readonly layout: Layout<KeptName>
  private readonly liveFloats: Float64Array
  /** Of the header, as long as it is whole. */
  private readonly copied: Buffer

  /** @param clock the primary's; null where it is only read */
  constructor(
    readonly buffer: ArrayBuffer | SharedArrayBuffer,
    { buffer: live, fd: liveFd }: Live,
    readonly kind: 'mapped' | 'shared',
    readonly fd: number,
    readonly path: string | null,
    private readonly source: ClockSource,
    private readonly clock: SegmentClock | null,
    public notice: string,
    readonly restored = false,
  ) {
    this.bytes = buffer.byteLength
    this.live = live
    this.liveFd = liveFd
    this.liveFloats = new Float64Array(live, 0, PAGE / 8)
    const header = new Header(buffer)
    this.seed = header.ints.slice(8, 12)
    this.layout = header.kept.layout
    this.copied = Buffer.from(header.bytes.subarray(0, COPIED_BYTES))
    if (clock !== null) this.liveFloats[LIVE_CLOCK] = clock.offsetUs
  }

  section(name: SectionName): Section {
    if (name in this.layout) return { buffer: this.buffer, ...this.layout[name as KeptName] }
    return { buffer: this.live, ...readPlace(this.liveFloats, LIVE.indexOf(name as LiveName) * 2) }
  }

  /** Runs per request. An aligned double neither tears nor goes backwards: only the primary moves it, and only on. */
  nowUs(): number {
    return Math.floor(this.source.monotonicUs() + (this.liveFloats[LIVE_CLOCK] as number))
  }

  touch(): boolean {
    const { clock, buffer, copied } = this
    if (clock === null) return true
    clock.touch()
    this.liveFloats[LIVE_CLOCK] = clock.offsetUs
    const end = new Uint8Array(buffer, buffer.byteLength - PAGE, MAGIC.length)
    const pages = [0, PAGE].map((at) => new Uint8Array(buffer, at, COPIED_BYTES))
    const whole = MAGIC.equals(end) && pages.every((page) => copied.equals(page))
    if (whole) return true
    for (const page of pages) page.set(copied)
    end.set(MAGIC)
    return false
  }
}

/**
 * Primary. Throws what the native addon throws (ELOCKED where another gateway has the file), and an Error where worker processes are
 * asked for without the addon or the path holds something that cannot be a segment.
 */
export function openSegment(spec: SegmentSpec, options: OpenOptions): Segment {
  const sizes: Record<KeptName, number> = {
    breakers: breakerTableBytes(spec.services),
    rates: rateTableBytes(spec.rateLimitKeys),
    replays: replayTableBytes(spec.replayKeys ?? 0),
  }
  const { layout, bytes } = layOutKept(sizes)
  const { layout: liveLayout, bytes: liveBytes } = layOut(LIVE, {
    health: healthBytes(spec.endpoints),
    workers: workersBytes(spec.workers),
    counters: Math.max(64, spec.countersBytesPerWorker * spec.workers),
    addresses: addressCountsBytes(spec.workers, spec.countsAddresses === true),
  })
  const source = options.clock ?? systemClock()
  const host = hostId(options.host)
  const { path } = options

  if (native === null || (path === null && options.isolation === 'thread')) {
    if (options.isolation === 'process') throw new Error(`worker processes need the native addon: ${nativeProblem}`)
    const buffer = new SharedArrayBuffer(bytes)
    const clock = writeNew(buffer, host, layout, source, null)
    const why = path === null ? '' : `: ${nativeProblem}`
    const live = begun({ buffer: new SharedArrayBuffer(liveBytes), fd: -1 })
    return new OpenSegment(buffer, live, 'shared', -1, null, source, clock, `state is kept in memory only${why}`)
  }
  const magic = MAGIC.toString('latin1')
  const file = native.openSegment(path, bytes, magic, options.held)
  if (path === null) return fresh(file, 'state is kept in memory only')
  if (file.created) return fresh(file, `fresh state in ${path}`)
  const header = new Header(file.buffer)
  const mended = mendHeader(file, host)
  const problem = header.misfit(host, file.bytes)
  if (problem !== '') return discarded(problem)
  const { kept } = header
  if (KEPT.some((name) => kept.layout[name].bytes !== sizes[name])) return resized(native, path)

  const clock = new SegmentClock(file.buffer, CLOCK_OFFSET, source).start()
  markEnd(file.buffer)
  const segment = new OpenSegment(file.buffer, mappedLive(), 'mapped', file.fd, path, source, clock, '', true)
  segment.notice = `state restored from ${path}: ${takeOver(segment, segment, source)}${mended}`
  return segment

  function begun(live: Live): Live {
    writePlaces(new Float64Array(live.buffer, 0, LIVE.length * 2), 0, Object.values(liveLayout))
    return live
  }

  function mappedLive(): Live {
    return begun(native!.openSegment(null, liveBytes))
  }

  function fresh(made: MappedFile, notice: string): Segment {
    const clock = writeNew(made.buffer, host, layout, source, null)
    return new OpenSegment(made.buffer, mappedLive(), 'mapped', made.fd, path, source, clock, notice)
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

  function discarded(why: string): Segment {
    return fresh(replaced(file.fd), `state in ${path} discarded: ${why}`)
  }

  /** Other table sizes: a new file, into which what is alive in the old one is taken over. */
  function resized(addon: Native, at: string): Segment {
    const extent = header.kept.bytes
    let old: MappedFile = file
    if (extent > old.buffer.byteLength) {
      old = addon.openSegment(at, extent, magic, old.fd)
    }
    const clockBefore = new SegmentClock(old.buffer, CLOCK_OFFSET, source).start()
    const live = mappedLive()
    const before = new OpenSegment(old.buffer, live, 'mapped', -1, at, source, clockBefore, '')
    const made = replaced(old.fd)
    const clock = writeNew(made.buffer, host, layout, source, new Header(old.buffer))
    const after = new OpenSegment(made.buffer, live, 'mapped', made.fd, at, source, clock, '', true)
    after.notice = `state restored from ${at}: ${takeOver(before, after, source)}; tables resized${mended}`
    return after
  }
}

/** What a worker needs to see the same segment. A forked one replaces both descriptors with what it inherited them as. */
export function segmentHandle(segment: Segment): SegmentHandle {
  const { kind, buffer, live, fd, bytes, liveFd } = segment
  if (kind === 'shared') return { kind, buffer: buffer as SharedArrayBuffer, live: live as SharedArrayBuffer }
  return { kind, fd, bytes, liveFd, liveBytes: live.byteLength }
}

/** Worker. In a process of its own the descriptor is used up; a thread shares the primary's and leaves it open. */
export function attachSegment(handle: SegmentHandle, source: ClockSource = systemClock()): Segment {
  if (handle.kind === 'shared') {
    return new OpenSegment(handle.buffer, { buffer: handle.live, fd: -1 }, 'shared', -1, null, source, null, '')
  }
  if (native === null) throw new Error(`a mapped segment needs the native addon: ${nativeProblem}`)
  const own = (fd: number): number => (isMainThread ? fd : openSync(`/proc/self/fd/${fd}`, 'r+'))
  const live = { buffer: native.attachSegment(own(handle.liveFd), handle.liveBytes), fd: -1 }
  const kept = native.attachSegment(own(handle.fd), handle.bytes)
  return new OpenSegment(kept, live, 'mapped', -1, null, source, null, '')
}

function takeOver(before: Segment, after: Segment, source: ClockSource): string {
  const replays = adoptReplays(before, after, Math.floor(source.wallUs() / 1e6))
  return [adoptRates(before, after), adoptBreakers(before, after), replays].filter((text) => text !== '').join(', ')
}

function wholePages(bytes: number): number {
  return Math.ceil(bytes / PAGE) * PAGE
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

/** Of header and copy one is damaged: it is written again from the other. For the log. */
function mendHeader({ buffer, bytes }: MappedFile, host: Buffer): string {
  const header = new Header(buffer)
  const copy = new Header(buffer, PAGE)
  const [isWhole, copyIsWhole] = [header, copy].map((one) => one.misfit(host, bytes) === '')
  if (isWhole === copyIsWhole) return ''
  const [whole, damaged] = isWhole ? [header, copy] : [copy, header]
  damaged.bytes.set(whole.bytes.subarray(0, COPIED_BYTES))
  return '; its header was damaged'
}

function markEnd(buffer: ArrayBuffer | SharedArrayBuffer): void {
  new Uint8Array(buffer, buffer.byteLength - PAGE).set(MAGIC)
}

/** Into zeroed memory; seed and clock from an earlier segment, where there is one. */
function writeNew(
  buffer: ArrayBuffer | SharedArrayBuffer,
  host: Buffer,
  layout: Layout<KeptName>,
  source: ClockSource,
  earlier: Header | null,
): SegmentClock {
  const header = new Header(buffer)
  const seed = earlier === null ? randomBytes(16) : earlier.bytes.slice(32, 48)
  header.write(host, seed, layout)
  const clock = header.bytes.subarray(CLOCK_OFFSET, CLOCK_OFFSET + CLOCK_BYTES)
  if (earlier !== null) clock.set(earlier.bytes.subarray(CLOCK_OFFSET, CLOCK_OFFSET + CLOCK_BYTES))
  const started = new SegmentClock(buffer, CLOCK_OFFSET, source).start()
  markEnd(buffer)
  Atomics.store(header.ints, COMPLETE, 1)
  new Header(buffer, PAGE).bytes.set(header.bytes.subarray(0, COPIED_BYTES))
  return started
}
