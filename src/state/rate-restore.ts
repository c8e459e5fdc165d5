// What becomes of an earlier run's buckets when the gateway starts: the claims of the dead end, what no run of this table can have
// written is emptied, and where the table has another size its buckets move. In the primary, before there are workers.
import { Charge } from './charge.js'
import { OWNERS } from './claims.js'
import { ticksAt } from './rate.js'
import { HORIZON_TICKS, LINE_64, type RateSlots, ROW_64, tagIndex, tagOf } from './rate-slots.js'
import { RateTable } from './rate-table.js'
import type { Segment } from './segment.js'

/** Workers that outlived their primary leave within moments, and none holds a claim for longer than an instant while it runs. */
const ORPHANS_MS = 20

/** Takes the buckets of `before` over into `after`, which may be the same segment. Returns what to say of it in the log. */
export function adoptRates(before: Segment, after: Segment): string {
  const table = new RateTable(after, 0)
  const from = before === after ? table : new RateTable(before, 0)
  const { slots } = from
  endClaims(from)

  const now = ticksAt(after.nowUs())
  const charge = new Charge()
  let kept = 0
  let damaged = 0
  let lost = 0
  for (let row = 0; row < slots.rows; row++) {
    Atomics.store(slots.words, row * ROW_64, 0n)
    // The tag after the last: of no slot.
    slots.tags[tagIndex(row * 16 + 15) + 1] = 0
    for (let line = row * 16 + 1; line < row * 16 + 16; line++) {
      const tat = Atomics.load(slots.words, line * LINE_64)
      const tag = slots.tags[tagIndex(line)] as number
      if (tag === 0 && tat >= 0n && tat <= now + 1n) continue
      const key = line * 16 + 2
      charge.a = slots.ints[key] as number
      charge.b = slots.ints[key + 1] as number
      charge.c = slots.ints[key + 2] as number
      charge.d = slots.ints[key + 3] as number
      const itsRow = slots.rowOf(charge.a) === row || slots.rowOf(charge.b) === row
      if (!itsRow || tag !== tagOf(charge.c) || tat < 0n || tat > now + HORIZON_TICKS) {
        slots.empty(line)
        damaged++
      } else if (tat > now) {
        if (from === table || table.restore(charge, tat)) kept++
        else lost++
      }
    }
  }
  return `${kept} buckets${damaged > 0 ? ` (${damaged} damaged ones dropped)` : ''}${lost > 0 ? ` (${lost} without room dropped)` : ''}`
}

function endClaims(table: RateTable): void {
  if (claimed(table.slots)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ORPHANS_MS)
  for (let owner = 0; owner < OWNERS; owner++) table.release(owner)
}

function claimed({ words, rows }: RateSlots): boolean {
  for (let at = 0; at < rows * ROW_64; at += LINE_64) if ((words[at] as bigint) < 0n) return true
  return false
}
