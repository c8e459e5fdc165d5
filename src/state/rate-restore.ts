// What becomes of an earlier run's buckets when the gateway starts: the claims of the dead end, what no run of this table can have
// written is emptied, and where the table has another size its buckets move. In the primary, before there are workers.
import { Charge } from './charge.js'
import { OWNERS } from './claims.js'
import { Owners } from './owners.js'
import { ticksAt } from './rate.js'
import { HORIZON_TICKS, LINE_64, ROW_64, tagIndex, tagOf } from './rate-slots.js'
import { RateTable } from './rate-table.js'
import type { Segment } from './segment.js'

/** A worker that outlived its primary holds a claim for no longer than an instant while it runs. */
const CLAIM_MS = 20

/** Takes the buckets of `before` over into `after`, which may be the same segment. Returns what to say of it in the log. */
export function adoptRates(before: Segment, after: Segment): string {
  const table = new RateTable(after, 0)
  const from = before === after ? table : new RateTable(before, 0)
  const { slots } = from
  const owners = new Owners(before)
  for (let owner = 0; owner < OWNERS; owner++) {
    if (owners.isAlive(owner)) continue
    from.release(owner)
    owners.free(owner)
  }

  const now = ticksAt(after.nowUs())
  const charge = new Charge()
  let kept = 0
  let damaged = 0
  let lost = 0
  for (let row = 0; row < slots.rows; row++) {
    endClaim(slots.words, row * ROW_64, 0n, owners)
    // The tag after the last: of no slot.
    slots.tags[tagIndex(row * 16 + 15) + 1] = 0
    for (let line = row * 16 + 1; line < row * 16 + 16; line++) {
      let tat: bigint
      let tag: number
      do {
        tat = settled(slots.words, line * LINE_64, owners)
        tag = slots.tags[tagIndex(line)] as number
        const key = line * 16 + 2
        charge.a = slots.ints[key] as number
        charge.b = slots.ints[key + 1] as number
        charge.c = slots.ints[key + 2] as number
        charge.d = slots.ints[key + 3] as number
        // An orphan may give the slot to another key this moment.
      } while (tat >= 0n && Atomics.load(slots.words, line * LINE_64) !== tat)
      if (tag === 0 && tat >= 0n && tat <= now + 1n) continue
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

/** What the word holds once a claim of somebody who lives has ended; a claim that stays is for the caller to end. */
function settled(words: BigInt64Array, word: number, owners: Owners): bigint {
  let seen = Atomics.load(words, word)
  for (let waitedMs = 0; seen < 0n && waitedMs < CLAIM_MS && owners.isAlive(Number(-1n - seen)); waitedMs++) {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1)
    seen = Atomics.load(words, word)
  }
  return seen
}

function endClaim(words: BigInt64Array, word: number, value: bigint, owners: Owners): void {
  const seen = settled(words, word, owners)
  if (seen !== value) Atomics.compareExchange(words, word, seen, value)
}
