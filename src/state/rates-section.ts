// The rate table's section, and what becomes of what an earlier run has counted when the gateway starts: claims of dead
// workers end, slots that no run can have written are emptied, and where the table has another size its slots move. In
// the primary, off the request's way.
import { damagedRows } from './damage.js'
import { Owners } from './owners.js'
import { HORIZON_TICKS, type RateSlots, rateTableBytes, tagOf } from './rate-slots.js'
import { RateTable } from './rate-table.js'
import type { KeptSection, Segment } from './segment.js'
import { SLOTS_PER_ROW } from './share.js'
import { ticksAt } from './ticks.js'
import { timesAreSound } from './window.js'

/** A worker that outlived its primary holds a claim for an instant only, unless it has to wait for a core. */
const CLAIM_MS = 20

export const ratesSection: KeptSection<{ readonly rateLimitKeys: number }> = {
  name: 'rates',
  kept: true,
  bytes: ({ rateLimitKeys }) => rateTableBytes(rateLimitKeys),
  adopt: adoptRates,
  release: (segment, owner) => new RateTable(segment, 0).release(owner),
}

function adoptRates(before: Segment, after: Segment): string {
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
  /** Claims that nobody will end, by their words. */
  const stale = new Map<number, bigint>()
  for (let row = 0; row < slots.rows; row++) {
    endClaim(slots, slots.lockOf(row), 0n, owners, stale)
    // The last tag belongs to no slot.
    slots.tags[slots.tagAt(slots.slotAt(row, SLOTS_PER_ROW - 1)) + 1] = 0
    for (let slot = 0; slot < SLOTS_PER_ROW; slot++) {
      const at = slots.slotAt(row, slot)
      let word: bigint
      let key: ReturnType<RateSlots['keyAt']>
      do {
        word = settled(slots, at, owners, stale)
        key = slots.keyAt(at)
        // A worker that outlived its primary may give the slot to another key this moment.
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

/** What the word holds once a living worker has ended its claim. A claim that stays is the caller's to end. */
function settled(slots: RateSlots, word: number, owners: Owners, stale: Map<number, bigint>): bigint {
  const { words } = slots
  let seen = Atomics.load(words, word)
  for (let waitedMs = 0; seen < 0n && seen !== stale.get(word) && owners.isAlive(Number(-1n - seen)); waitedMs++) {
    if (waitedMs === CLAIM_MS) {
      noteStale(slots, stale)
      break
    }
    pause(1)
    seen = Atomics.load(words, word)
  }
  return seen
}

/** A claim that stays is damage, which seldom hits one word alone. So this waits for all other claims together. */
function noteStale(slots: RateSlots, stale: Map<number, bigint>): void {
  const { words } = slots
  const claims = new Map<number, bigint>()
  const note = (word: number): void => {
    const seen = Atomics.load(words, word)
    if (seen < 0n) claims.set(word, seen)
  }
  for (let row = 0; row < slots.rows; row++) {
    note(slots.lockOf(row))
    for (let slot = 0; slot < SLOTS_PER_ROW; slot++) note(slots.slotAt(row, slot))
  }
  for (let waitedMs = 0; waitedMs < CLAIM_MS; waitedMs++) {
    pause(1)
    for (const [word, claim] of claims) if (Atomics.load(words, word) !== claim) claims.delete(word)
  }
  for (const [word, claim] of claims) stale.set(word, claim)
}

function pause(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms)
}

function endClaim(slots: RateSlots, word: number, value: bigint, owners: Owners, stale: Map<number, bigint>): void {
  const seen = settled(slots, word, owners, stale)
  if (seen !== value) Atomics.compareExchange(slots.words, word, seen, value)
}
