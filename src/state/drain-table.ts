// The endpoints that an operator has drained, kept from start to start. Only the primary reads and writes it; workers
// see a bit of the endpoint's record (endpoint-table.ts). Off the request's way.
//
//   section `drains`   256 records of 512 bytes; zeros: free
//      0 [Int32] checksum of what follows, up to the end of the text
//      4 [Int32] bytes of the text
//      8 [Float64] since when, microseconds on the segment's clock
//     16 text: the service's name, a blank, the endpoint's origin
import { checksum, LATEST_US } from './clock.js'
import { damagedRows } from './damage.js'
import type { KeptSection, Segment } from './segment.js'

const RECORDS = 256
const RECORD_BYTES = 512
const SINCE = 8
const TEXT = 16
const EMPTY = Buffer.alloc(RECORD_BYTES)

export interface Drain {
  readonly service: string
  readonly origin: string
  readonly sinceUs: number
}

export class DrainTable {
  private readonly records: readonly Buffer[]
  /** What the memory should hold, also after damage to it. */
  private known: readonly Drain[] = []

  constructor(segment: Segment) {
    const { buffer, offset } = segment.section(drainsSection.name)
    this.records = Array.from({ length: RECORDS }, (_, at) =>
      Buffer.from(buffer, offset + at * RECORD_BYTES, RECORD_BYTES),
    )
    this.read()
  }

  /** Oldest first. */
  get all(): readonly Drain[] {
    return this.known
  }

  has(service: string, origin: string): boolean {
    return this.known.some((one) => one.service === service && one.origin === origin)
  }

  /** Reads the memory again: another gateway, which is about to be taken over, may have written to it. */
  read(): void {
    const found = this.records.map(drainOf).filter((drain) => drain !== null)
    this.known = found.sort((a, b) => a.sinceUs - b.sinceUs)
  }

  /**
   * False: nothing was changed, because the names are too long for a record or all records are taken.
   * @param isSpare drains whose record may be taken if none is free, the oldest first
   */
  add(drain: Drain, isSpare: (drain: Drain) => boolean): boolean {
    if (this.has(drain.service, drain.origin)) return true
    if (Buffer.byteLength(textOf(drain)) > RECORD_BYTES - TEXT) return false
    if (this.known.length >= RECORDS) {
      const spare = this.known.find(isSpare)
      if (spare === undefined) return false
      this.remove(spare.service, spare.origin)
    }
    this.known = [...this.known, drain]
    this.write()
    return true
  }

  /** False: it was not drained. */
  remove(service: string, origin: string): boolean {
    if (!this.has(service, origin)) return false
    this.known = this.known.filter((one) => one.service !== service || one.origin !== origin)
    this.write()
    return true
  }

  /** Makes the memory hold what it should. A record that stays is not touched. */
  write(): void {
    const missing = [...this.known]
    const free: Buffer[] = []
    for (const record of this.records) {
      const drain = drainOf(record)
      const at = drain === null ? -1 : missing.findIndex((one) => textOf(one) === textOf(drain))
      if (at >= 0) missing.splice(at, 1)
      else free.push(record)
    }
    for (const record of free) if (!isEmpty(record)) record.fill(0)
    for (const [at, drain] of missing.entries()) writeRecord(free[at] as Buffer, drain)
  }

  /** How many records hold something that is no drain. */
  get damaged(): number {
    return this.records.filter((record) => drainOf(record) === null && !isEmpty(record)).length
  }
}

function textOf({ service, origin }: Pick<Drain, 'service' | 'origin'>): string {
  return `${service} ${origin}`
}

function isEmpty(record: Buffer): boolean {
  return record.equals(EMPTY)
}

/** Null: free or damaged. */
function drainOf(record: Buffer): Drain | null {
  const bytes = record.readInt32LE(4)
  const sinceUs = record.readDoubleLE(SINCE)
  if (bytes <= 0 || bytes > RECORD_BYTES - TEXT || !(sinceUs >= 0 && sinceUs <= LATEST_US)) return null
  if (record.readInt32LE(0) !== checksum(record.subarray(4, TEXT + bytes))) return null
  const [service = '', origin = ''] = record.toString('utf8', TEXT, TEXT + bytes).split(/ (.*)/s)
  return { service, origin, sinceUs }
}

/** The checksum goes last: if the primary dies in between, the record is a damaged one. */
function writeRecord(record: Buffer, drain: Drain): void {
  const text = textOf(drain)
  const bytes = record.write(text, TEXT)
  record.writeInt32LE(bytes, 4)
  record.writeDoubleLE(drain.sinceUs, SINCE)
  record.writeInt32LE(checksum(record.subarray(4, TEXT + bytes)), 0)
}

export const drainsSection: KeptSection<object> = {
  name: 'drains',
  kept: true,
  bytes: () => RECORDS * RECORD_BYTES,
  adopt(before, after) {
    const found = new DrainTable(before)
    const { damaged } = found
    const table = before === after ? found : new DrainTable(after)
    for (const drain of found.all) table.add(drain, () => false)
    table.write()
    const count = found.all.length
    return count + damaged === 0 ? '' : `${count} drained endpoints${damagedRows(damaged)}`
  },
}
