// The pages of the segment's file that say what lies where. A primary writes them when it makes the file, and again
// where something has damaged them; the next primary reads them. Workers never do. Knows no table.
//
//   ┌─ header, 4096 bytes ─────────────────────────────────────────────────────────────────────────┐
//   │   0 magic       8 bytes    'TIDEGATE'                                                        │
//   │   8 layout      Int32                                                                        │
//   │  12 complete    Int32      1, written last. 0: the primary died while it made the file       │
//   │  16 host        16 bytes   hash of the machine's id: clock and pids are that machine's       │
//   │  32 seed        4 × Int32  random, for the hashes of keys                                    │
//   │  48 free                                                                                     │
//   │  72 checksum    Int32      of bytes 0 to 71, `complete` taken as 0, and of the directory     │
//   │  76 free                                                                                     │
//   │ 128 clock       128 bytes  clock.ts                                                          │
//   │ 256 directory   64 × 32 bytes, one a section: name 24 bytes, padded with zeros;              │
//   │                 bytes Float64. In the order of the names; an empty name ends it              │
//   ├─ copy, 4096 bytes: the header again without the clock. If one is damaged, the other is used ─┤
//   ├─ the sections, in the order of the directory, each on pages of its own ──────────────────────┤
//   ├─ end, 4096 bytes: begins with the magic. Zeros mean that the file was cut short ─────────────┤
//   └──────────────────────────────────────────────────────────────────────────────────────────────┘
//
// In layout 4 the directory was three sizes at 48, of the sections `breakers`, `rates` and `replays`, and the checksum
// was that of bytes 0 to 71. The tables have not changed since, so a file of layout 4 is still taken over.
import { CLOCK_BYTES, checksum } from './clock.js'

export const PAGE = 4096
export const LAYOUT = 5
const FORMER_LAYOUT = 4
const FORMER_SECTIONS = ['breakers', 'rates', 'replays']

export const MAGIC = Buffer.from('TIDEGATE', 'latin1')
const LAYOUT_32 = 2
const COMPLETE_32 = 3
const HOST = 16
const SEED = 32
const FORMER_SIZES_64 = 6
const CHECKSUM = 72
export const CLOCK = 128
const DIRECTORY = CLOCK + CLOCK_BYTES
const ENTRY_BYTES = 32
const NAME_BYTES = 24
const MOST_SECTIONS = 64

type Memory = ArrayBuffer | SharedArrayBuffer

interface Sized {
  readonly name: string
  readonly bytes: number
}

/** Where a section lies, from the start of its memory. */
export interface Place extends Sized {
  readonly offset: number
}

/** Sections on pages of their own, from `start` on. */
export function layOut(sections: readonly Sized[], start: number): { places: Place[]; end: number } {
  let end = start
  const places = sections.map(({ name, bytes }) => {
    const offset = end
    end += Math.ceil(bytes / PAGE) * PAGE
    return { name, bytes, offset }
  })
  return { places, end }
}

/** The same between header, copy and end, as a file has them. */
export function layOutFile(sections: readonly Sized[]): { places: Place[]; bytes: number } {
  const { places, end } = layOut(sections, 2 * PAGE)
  return { places, bytes: end + PAGE }
}

export class Header {
  private readonly ints: Int32Array
  private readonly floats: Float64Array
  private readonly bytes: Uint8Array

  /** @param at where the page begins: the header's, or its copy's */
  constructor(buffer: Memory, at = 0) {
    this.ints = new Int32Array(buffer, at, PAGE / 4)
    this.floats = new Float64Array(buffer, at, PAGE / 8)
    this.bytes = new Uint8Array(buffer, at, PAGE)
  }

  get seed(): Int32Array {
    return this.ints.slice(SEED / 4, SEED / 4 + 4)
  }

  get isFormer(): boolean {
    return this.ints[LAYOUT_32] === FORMER_LAYOUT
  }

  /** What the file holds, and how large it is. */
  get file(): { places: Place[]; bytes: number } {
    return layOutFile(this.isFormer ? this.formerSections() : this.sections())
  }

  /** Why the file cannot be used, or '' where it can. */
  misfit(host: Buffer, fileBytes: number): string {
    if (!MAGIC.equals(this.bytes.subarray(0, MAGIC.length))) return 'its header is damaged'
    if (this.ints[COMPLETE_32] !== 1) return 'the start that made it did not finish'
    const layout = this.ints[LAYOUT_32]
    if (layout !== LAYOUT && layout !== FORMER_LAYOUT) return `written with layout ${layout}, this is ${LAYOUT}`
    // Mapped beyond the end of the file, the first touch would be a SIGBUS.
    if (this.ints[CHECKSUM / 4] !== this.checksum() || !(this.file.bytes <= fileBytes)) return 'its header is damaged'
    if (!host.equals(this.bytes.subarray(HOST, SEED))) return 'written on another host'
    return ''
  }

  /** Into zeroed memory: all but `complete`. */
  write(host: Buffer, seed: Int32Array, sections: readonly Sized[]): void {
    if (sections.length > MOST_SECTIONS) throw new RangeError(`more than ${MOST_SECTIONS} sections`)
    this.bytes.set(MAGIC, 0)
    this.ints[LAYOUT_32] = LAYOUT
    this.bytes.set(host, HOST)
    this.ints.set(seed, SEED / 4)
    sections.forEach(({ name, bytes }, index) => {
      const at = DIRECTORY + index * ENTRY_BYTES
      const text = Buffer.from(name)
      if (text.length > NAME_BYTES) throw new RangeError(`section ${name}: its name is longer than ${NAME_BYTES} bytes`)
      this.bytes.set(text, at)
      this.floats[(at + NAME_BYTES) / 8] = bytes
    })
    this.ints[CHECKSUM / 4] = this.checksum()
  }

  /** Last of all. */
  complete(): void {
    Atomics.store(this.ints, COMPLETE_32, 1)
  }

  /** Makes this page what the other one is, but for the clock. */
  copyFrom(other: Header): void {
    for (const [i, part] of this.parts().entries()) part.set(other.parts()[i] as Uint8Array)
  }

  /** All of the page but the clock. */
  parts(): Uint8Array[] {
    return [this.bytes.subarray(0, CLOCK), this.bytes.subarray(DIRECTORY, DIRECTORY + MOST_SECTIONS * ENTRY_BYTES)]
  }

  private sections(): Sized[] {
    const sections: Sized[] = []
    for (let at = DIRECTORY; at < DIRECTORY + MOST_SECTIONS * ENTRY_BYTES; at += ENTRY_BYTES) {
      const name = Buffer.from(this.bytes.subarray(at, at + NAME_BYTES))
        .toString()
        .replace(/\0+$/, '')
      if (name === '') break
      sections.push({ name, bytes: this.floats[(at + NAME_BYTES) / 8] as number })
    }
    return sections
  }

  private formerSections(): Sized[] {
    return FORMER_SECTIONS.map((name, i) => ({ name, bytes: this.floats[FORMER_SIZES_64 + i] as number }))
  }

  private checksum(): number {
    const [, directory] = this.parts() as [Uint8Array, Uint8Array]
    const head = Buffer.from(this.bytes.subarray(0, CHECKSUM))
    head.fill(0, COMPLETE_32 * 4, COMPLETE_32 * 4 + 4)
    return checksum(this.isFormer ? head : Buffer.concat([head, directory]))
  }
}

/** Primary, at start: of header and copy one is damaged, and is written again from the other. For the log. */
export function mendHeader(buffer: Memory, fileBytes: number, host: Buffer): string {
  const header = new Header(buffer)
  const copy = new Header(buffer, PAGE)
  const [isWhole, copyIsWhole] = [header, copy].map((one) => one.misfit(host, fileBytes) === '')
  if (isWhole === copyIsWhole) return ''
  if (isWhole) copy.copyFrom(header)
  else header.copyFrom(copy)
  return '; its header was damaged'
}

export function markEnd(buffer: Memory): void {
  new Uint8Array(buffer, buffer.byteLength - PAGE).set(MAGIC)
}

/**
 * Primary, while it runs: header, copy and end as they were when it opened the file, to write them again where they are
 * no more.
 */
export class HeaderGuard {
  private readonly pages: readonly Uint8Array[][]
  private readonly whole: readonly Buffer[]
  private readonly end: Uint8Array

  constructor(buffer: Memory) {
    this.pages = [0, PAGE].map((at) => new Header(buffer, at).parts())
    this.whole = (this.pages[0] as Uint8Array[]).map((part) => Buffer.from(part))
    this.end = new Uint8Array(buffer, buffer.byteLength - PAGE, MAGIC.length)
  }

  /** False: something has cut the file or written to it. All three are whole again. */
  restore(): boolean {
    const { pages, whole, end } = this
    const same = (parts: Uint8Array[]): boolean => whole.every((part, i) => part.equals(parts[i] as Uint8Array))
    if (MAGIC.equals(end) && pages.every(same)) return true
    for (const parts of pages) for (const [i, part] of whole.entries()) (parts[i] as Uint8Array).set(part)
    end.set(MAGIC)
    return false
  }
}
