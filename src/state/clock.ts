// The segment's clock: one for all processes, kept over restarts, never backwards. It measures spans and does not tell
// the time.
//
// It is CLOCK_MONOTONIC, which all processes of a machine share, plus an offset that the segment keeps with the boot it
// belongs to:
//   same boot      the offset stays. A step of the wall clock does not move it, nor does a restart. After a month of
//                  slewing it differs from the wall clock by what that was slewed, which matters to nothing here.
//   another boot   offset = max(wall clock, time last seen) − monotonic. If the wall clock lost an hour over the reboot
//                  (no battery, no NTP yet), the time that the machine was off is lost, but never time that was counted
//                  already.
//   suspend        CLOCK_MONOTONIC stands still, the uptime does not. touch() moves the offset on by the difference,
//                  but no further than the wall clock: a container may make up its uptime.
// If the wall clock is far ahead when a segment is made, the segment's clock stays ahead. If it is far ahead at a later
// boot, every bucket fills up and every breaker tries again: the state cannot tell this from a machine that was off for
// so long.
import { readFileSync } from 'node:fs'
import { uptime } from 'node:os'
import { performance } from 'node:perf_hooks'

/** Where the clock reads times. Tests have their own. */
export interface ClockSource {
  /** Since the epoch. */
  wallUs(): number
  /** CLOCK_MONOTONIC, the same in every process. */
  monotonicUs(): number
  /** Since boot, with the time spent suspended. */
  uptimeUs(): number
  /** Up to 36 characters, others after each boot. */
  bootId(): string
}

/**
 * performance.now() counts from the start of the process. Its difference to CLOCK_MONOTONIC is measured once, between
 * the two of several readings that lie closest together, so that two processes agree to well below a microsecond.
 */
function monotonicBaseUs(): number {
  let base = 0
  let narrowest = Number.POSITIVE_INFINITY
  for (let i = 0; i < 16; i++) {
    const before = process.hrtime.bigint()
    const sinceStartUs = performance.now() * 1000
    const after = process.hrtime.bigint()
    const width = Number(after - before)
    if (width >= narrowest) continue
    narrowest = width
    base = Number(before) / 1000 + width / 2000 - sinceStartUs
  }
  return base
}

export function systemClock(): ClockSource {
  const baseUs = monotonicBaseUs()
  return {
    wallUs: () => Date.now() * 1000,
    monotonicUs: () => performance.now() * 1000 + baseUs,
    uptimeUs: () => uptime() * 1e6,
    bootId: () => {
      try {
        return readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim()
      } catch {
        // Without that file, the wall clock at boot names the boot, in steps of a minute.
        return `boot ${Math.round((Date.now() / 1000 - uptime()) / 60)}`
      }
    },
  }
}

//   clock record    0 offsetUs     Float64  clock − monotonic; processes read a copy of it (segment.ts)
//                   8 uptimeGapUs  Float64  uptime − monotonic
//                  16 bootId       36 bytes
//                  52 checksum     Int32    of the 52 bytes before: if a start died half-way, the next one takes it for
//                                           another boot
//                  64 lastSeenUs   Float64  on a line of its own
//                  72 lastSeenUs   again: if the two are too far apart, neither counts
export const CLOCK_BYTES = 128
const CHECKED_BYTES = 52

/** The tables' arithmetic holds between these; a machine without a clock battery starts in 1970. */
export const EARLIEST_US = Date.UTC(2025, 0, 1) * 1000
export const LATEST_US = Date.UTC(2060, 0, 1) * 1000

/** A shorter gap is no suspend, but scheduling and the resolution of the uptime. */
const SHORTEST_SUSPEND_US = 1e6

/** How far apart the two lastSeenUs may be, if the primary died between writing them. */
const LONGEST_UNSEEN_US = 3600e6

/** The record, which only the primary writes: all of it with each touch, so that damage does not last. */
export class SegmentClock {
  /** Clock − CLOCK_MONOTONIC. */
  offsetUs = 0
  private uptimeGapUs = 0
  private bootId = Buffer.alloc(36)
  private readonly floats: Float64Array
  private readonly bytes: Uint8Array
  private readonly ints: Int32Array

  constructor(
    buffer: ArrayBuffer | SharedArrayBuffer,
    offset: number,
    private readonly source: ClockSource,
  ) {
    this.floats = new Float64Array(buffer, offset, CLOCK_BYTES / 8)
    this.bytes = new Uint8Array(buffer, offset, CLOCK_BYTES)
    this.ints = new Int32Array(buffer, offset, CLOCK_BYTES / 4)
  }

  nowUs(): number {
    return Math.floor(this.source.monotonicUs() + this.offsetUs)
  }

  /** At start, on a zeroed or restored record. */
  start(): this {
    const { source, floats } = this
    this.bootId = Buffer.from(source.bootId().padEnd(36).slice(0, 36), 'latin1')
    if (this.checksum() === this.ints[13] && this.bootId.equals(this.bytes.subarray(16, CHECKED_BYTES))) {
      this.offsetUs = floats[0] as number
      this.uptimeGapUs = floats[1] as number
      this.touch()
      return this
    }
    const [seenUs, againUs] = floats.subarray(8, 10) as unknown as [number, number]
    const lastSeenUs = Math.abs(seenUs - againUs) < LONGEST_UNSEEN_US ? seenUs : 0
    const startUs = Math.min(Math.max(source.wallUs(), EARLIEST_US, lastSeenUs), LATEST_US)
    this.offsetUs = startUs - source.monotonicUs()
    this.uptimeGapUs = source.uptimeUs() - source.monotonicUs()
    this.write()
    return this
  }

  /** Every second or so: notes the time, which a reboot must not fall behind, and catches up with a suspend. */
  touch(): void {
    const { source } = this
    const gapUs = source.uptimeUs() - source.monotonicUs()
    const sleptUs = Math.min(gapUs - this.uptimeGapUs, source.wallUs() - this.nowUs())
    if (sleptUs > SHORTEST_SUSPEND_US)
      this.offsetUs = Math.min(this.offsetUs + sleptUs, LATEST_US - source.monotonicUs())
    if (Math.abs(gapUs - this.uptimeGapUs) > SHORTEST_SUSPEND_US) this.uptimeGapUs = gapUs
    this.write()
  }

  private write(): void {
    const { floats } = this
    floats[0] = this.offsetUs
    floats[1] = this.uptimeGapUs
    this.bytes.set(this.bootId, 16)
    this.ints[13] = this.checksum()
    const nowUs = this.nowUs()
    floats[8] = nowUs
    floats[9] = nowUs
  }

  private checksum(): number {
    return checksum(this.bytes.subarray(0, CHECKED_BYTES))
  }
}

/** FNV-1a: notices a torn write, and does not protect from forgery. Never 0, which is what an empty page holds. */
export function checksum(bytes: Uint8Array): number {
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return hash | 1
}
