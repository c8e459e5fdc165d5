// How the limits divide the slots of the rate table. Worked out when a configuration is compiled; rate-slots.ts asks it
// for each key that needs a slot.
//
//   a row of 15      ┌── 13 for keys of requests ──┬─ 2 ─┐
//                    │ up to 6 divided │ 7 for all │     │ for slots that keys share (rate-table.ts)
//                    └─────────────────┴───────────┴─────┘
//
// Clients choose some keys. They can fill the slots that are for all, and the part of their own limit, but no other
// limit's part. So an admitted key gets a slot unless both its rows already hold `own` slots of its limit. It then
// shares one, and is refused once that slot has counted the limit's number, since this key may have caused all of it.
//
// With more than six limits, the six go to whichever come first. A row may hold more than two shared slots, though few
// do: the third takes one of the 13.
import type { KeyHash } from './key-hash.js'

export const SLOTS_PER_ROW = 15
/** Of a row, for keys of requests' own. */
export const FOR_KEYS = 13
/** Of these, divided among the limits. */
const DIVIDED = 6

/** The 128 bits that tell a key from all others. */
export type SlotKey = Pick<KeyHash, 'a' | 'b' | 'c' | 'd'>

/** What a limit may have of the table. */
export interface Share {
  /** The limit, whatever its keys: slots carry it. */
  readonly mark: number
  /** Slots of a row that are kept for this limit. */
  readonly own: number
  /** Slots of a row that are kept for the others. */
  readonly others: number
  /** Keys that find no slot share slots: so many at most, whose keys begin with this hash. */
  readonly common: number
  readonly commonKeys: KeyHash
}

/** The mark of a slot that keys of a limit share. */
export function sharedMark(mark: number): number {
  return mark | 1
}

/** What each of so many limits may have. */
export function shareOf(limits: number, start: KeyHash, rows: number, commonKeys: KeyHash): Share {
  const own = Math.max(1, Math.floor(DIVIDED / limits))
  return {
    mark: start.a & ~1,
    own,
    others: Math.min(DIVIDED, (limits - 1) * own),
    // Two slots of each row are there for them: a quarter of that, so that each finds one in one of its two rows. A
    // power of two, so that a few limits more or less move no key.
    common: 2 ** Math.floor(Math.log2(Math.max(1, rows / 2 / limits))),
    commonKeys,
  }
}
