// A limit without `burst`: a sliding window, never more than `quantity` in any span of its length. Runs per request.
// Its slot is five lines: the first word, and a ring of times.
//
//   word   low half    position   Uint32   units counted since the key got the slot
//          high half   until      Int32    when the newest of them will have left the window, rounded up (ticks.ts)
//   32     times       36 × Float64        µs: when the newest unit of each group was counted, negative in every other
//                                          round of the ring
//
// Units are counted in groups of g = ⌈quantity / 35⌉: unit n belongs to group ⌊n / g⌋, whose time is at place ⌊n / g⌋
// mod 36. A group leaves the window when its newest unit does. With a quantity up to 35, g is 1 and the count is exact.
// Above, the count is never too low, and too high only by units that left before the newest of the oldest group: at
// most g − 1. So no request is refused while at most quantity − g units are in the window, more than 0.97 of it.
//
//   position − quantity                                             position
//           │              ┌──────────── in the window ───────────────┤
//       │ g │ g │ g │ g │ g │ g │ g │ g │ g │ g │ g │ g │ g │ g │ g │ 2 │
//         ↑ the oldest group that can be in it: from there on it is 36 groups at most, so the ring need not be longer
//
// To count, a worker sets the times of the groups that get units to now, each by a compareExchange, and then replaces
// the word by one with a higher position: only this step admits. A worker that dies before it, or finds the word
// changed, has counted nothing. It may leave a group that was not full with a time too late (then fewer than g units
// leave later, which is the error above), or times of groups that are not counted yet. Those are at the places of
// groups one round older, which have left; the sign tells the two apart.
//
// A request's own time may be older than the newest in the window: it was read before another worker's, and decided
// after it. Its window ends at its own time, but it is counted at the newest time. So by the requests' own times, no
// window has too many.
//
// The position goes back before 32 bits are full, by an even number of rounds and never below one round: what the
// places hold is then this key's. No word comes twice: while `until` stays the same, less than a second, at most
// `quantity` units are admitted, and the position goes back by more.
import type { Charge, Cost, Meter } from './charge.js'
import type { RateSlots } from './rate-slots.js'
import { bitsOf, doubleOf, highAfter, wordOf } from './ticks.js'

/** Groups in a whole window: the count is wrong by less than one of them. */
const GROUPS = 35
/** One more, which the window reaches in part. */
const PLACES = GROUPS + 1
/** Where they begin in a slot, in 64-bit words. */
const PLACES_AT = 4
/** Two processes read the same clock: their times differ by less. */
const SKEW_US = 1e6

export class Window implements Meter {
  readonly wide = true
  readonly salt: string
  private readonly windowUs: number
  private readonly group: number
  /** From here on a position goes back by `rounds`. */
  private readonly end: number
  private readonly rounds: number

  /** @param quantity at most 10^9, in any windowSeconds, at least 1 */
  constructor(
    private readonly quantity: number,
    windowSeconds: number,
  ) {
    this.windowUs = windowSeconds * 1e6
    this.group = Math.ceil(quantity / GROUPS)
    const round = this.group * PLACES
    // Below 2^31, so that group numbers are small integers. Odd, so that it goes back by an even number of rounds.
    const most = Math.max(3, (Math.floor(2 ** 31 / round) - 4) | 1)
    this.end = most * round
    this.rounds = (most - 1) * round
    // Only windows of the same length and group can read each other's ring.
    this.salt = `window ${windowSeconds} ${this.group}`
  }

  cost(units: number): Cost {
    return { units, ticks: 0n }
  }

  decide(charge: Charge, slots: RateSlots, at: number, nowUs: number): boolean {
    const { group, quantity } = this
    const { units } = charge.cost
    let position = at < 0 ? 0 : (slots.ints[at * 2] as number) >>> 0
    let first = 0
    let used = 0
    let newestUs = 0
    if (position > 0) {
      const last = ((position - 1) / group) | 0
      newestUs = timeOf(slots, at, last)
      const cutoffUs = nowUs - this.windowUs
      if (newestUs > cutoffUs) {
        first = position > quantity ? ((position - quantity) / group) | 0 : 0
        // Finds the first group in the window: times never fall from group to group.
        for (let high = last; first < high; ) {
          const middle = (first + high) >>> 1
          const us = slots.floats[at + PLACES_AT + (middle % PLACES)] as number
          // With the other sign, a later group has set it: this one has left, unless our own time is older than the
          // newest.
          const isIn = us < 0 === isOddRound(middle) ? Math.abs(us) > cutoffUs : nowUs < newestUs
          if (isIn) high = middle
          else first = middle + 1
        }
        used = position - first * group
      } else {
        // No group is: the request begins a new one.
        position = (last + 1) * group
      }
    }
    if (used + units > quantity) {
      charge.used = Math.min(used, quantity)
      charge.newestUs = newestUs
      // The last of the groups that must leave.
      const leaving = first + (((used + units - quantity - 1) / group) | 0)
      charge.freedUs = units > quantity ? newestUs : timeOf(slots, at, leaving)
      return false
    }
    charge.position = position
    charge.used = used + units
    charge.newestUs = Math.max(newestUs, nowUs)
    const until = highAfter(charge.newestUs + this.windowUs)
    const former = at < 0 ? 0 : (slots.ints[at * 2 + 1] as number)
    const next = position + units
    charge.next = wordOf(Math.max(until, former), next >= this.end ? next - this.rounds : next)
    return true
  }

  prepare(charge: Charge, slots: RateSlots, at: number, held: bigint): boolean {
    const { group } = this
    const { words } = slots
    const us = charge.newestUs
    const last = ((charge.position + charge.cost.units - 1) / group) | 0
    for (let each = (charge.position / group) | 0; each <= last; each++) {
      const place = at + PLACES_AT + (each % PLACES)
      const seen = Atomics.load(words, place)
      const seenUs = doubleOf(seen)
      const isOdd = isOddRound(each)
      if (seenUs < 0 === isOdd && Math.abs(seenUs) >= us) continue
      // The word is unchanged, so what was seen is not of a later round.
      if (Atomics.load(words, at) !== held) return false
      if (Atomics.compareExchange(words, place, seen, bitsOf(isOdd ? -us : us)) !== seen) return false
    }
    return true
  }

  begin(charge: Charge, slots: RateSlots, at: number, from: number, nowUs: number): bigint {
    if (from < 0) return wordOf(highAfter(nowUs), 0)
    const { words } = slots
    for (let place = PLACES_AT; place < PLACES_AT + PLACES; place++)
      Atomics.store(words, at + place, Atomics.load(words, from + place))
    return charge.seen
  }

  tell(charge: Charge, nowUs: number): void {
    charge.left = this.quantity - charge.used
    charge.wholeInUs = charge.used === 0 ? 0 : charge.newestUs + this.windowUs - nowUs
    charge.againInUs = charge.freedUs + this.windowUs - nowUs
  }
}

function isOddRound(group: number): boolean {
  return (((group / PLACES) | 0) & 1) === 1
}

function timeOf(slots: RateSlots, at: number, group: number): number {
  return Math.abs(slots.floats[at + PLACES_AT + (group % PLACES)] as number)
}

/** At start: no run of this table has written a time that lies ahead. */
export function timesAreSound(slots: RateSlots, at: number, nowUs: number): boolean {
  for (let place = 0; place < PLACES; place++) if (!(timeOf(slots, at, place) <= nowUs + SKEW_US)) return false
  return true
}
