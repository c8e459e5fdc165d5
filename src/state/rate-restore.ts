// What becomes of what an earlier run has counted when the gateway starts: the claims of the dead end, what no run of this table can have
// written is emptied, and where the table has another size its slots move. In the primary, before there are workers.
import { Owners } from './owners.js'
import { HORIZON_TICKS, type RateSlots, SLOTS_PER_ROW, tagOf } from './rate-slots.js'
import { RateTable } from './rate-table.js'
import type { Segment } from './segment.js'
import { ticksAt } from './ticks.js'
import { timesAreSound } from './window.js'

/** A worker that outlived its primary holds a claim for no longer than an instant while it runs. */
const CLAIM_MS = 20

/** Takes what is in `before` over into `after`, which may be the same segment. Returns what to say of it in the log. */
export function adoptRates(before: Segment, after: Segment): string {
  const table = new RateTable(after, 0)
  const from = before === after ? table : new RateTable(before, 0)
  const owners = new Owners(before)
  owners.freeDead((owner) => from.release(owner))
  from.narrow.soundCounts()
  const counts = { kept: 0, damaged: 0, lost: 0 }
  const nowUs = after.nowUs()
  for (const slots of [from.narrow, from.wide]) adopt(slots, from === table ? null : table, nowUs, owners, counts)
  const { kept, damaged, lost } = counts
  return `${kept} rate limit keys${damagedRows(damaged)}${lost > 0 ? ` (${lost} without room dropped)` : ''}`
}

/** @param to null where the slots stay where they are */
function adopt(
  slots: RateSlots,
  to: RateTable | null,
  nowUs: number,
  owners: Owners,
  counts: { kept: number; damaged: number; lost: number },
): void {
  const now = ticksAt(nowUs)
  for (let row = 0; row < slots.rows; row++) {
    endClaim(slots.words, slots.lockOf(row), 0n, owners)
    // The tag after the last: of no slot.
    slots.tags[slots.tagAt(slots.slotAt(row, SLOTS_PER_ROW - 1)) + 1] = 0
    for (let slot = 0; slot < SLOTS_PER_ROW; slot++) {
      const at = slots.slotAt(row, slot)
      let word: bigint
      let key: ReturnType<RateSlots['keyAt']>
      do {
        word = settled(slots.words, at, owners)
        key = slots.keyAt(at)
        // An orphan may give the slot to another key this moment.
      } while (word >= 0n && Atomics.load(slots.words, at) !== word)
      const tag = slots.tags[slots.tagAt(at)] as number
      if (tag === 0 && word >= 0n && word <= now + 1n) continue
      const itsRow = slots.rowOf(key.a) === row || slots.rowOf(key.b) === row
      const isOurs = itsRow && tag === tagOf(key.c) && word >= 0n && word <= now + HORIZON_TICKS
      if (!isOurs || (slots.wide && !timesAreSound(slots, at, nowUs))) {
        slots.empty(at)
        counts.damaged++
      } else if (word > now) {
        if (to === null || to.restore(slots, at)) counts.kept++
        else counts.lost++
      }
    }
  }
}

/** For the log. */
export function damagedRows(count: number): string {
  return count > 0 ? ` (${count} damaged ones dropped)` : ''
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
