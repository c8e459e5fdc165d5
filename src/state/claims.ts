// How a worker holds a word of a shared table while it changes several, and what happens if it dies meanwhile. Runs per
// request, for the rate table and the replay table. Allocates nothing.
//
// A claim is a negative number in a 64-bit word: −1 − owner. A worker puts it there by compareExchange and takes it
// away itself, about 100 ns later. No other takes it from a worker that lives: with a lease, a worker that was only
// stopped could go on writing beside the next holder. The primary knows for certain which workers are dead, since it
// waits for its children. release() then gives back what such a worker held, from the journal it left. The journal is
// written before each claim, so no claim is without an entry; an entry whose word its owner has not claimed means
// nothing. A worker that meets a claim waits for it to go. If it stays, because its holder is stopped or dead and not
// yet released, the caller is told so.
//
//   journal   one a worker, ENTRIES of 16 bytes
//               0 kind    Int32   what release() has to undo, 0 for nothing
//               4 word    Int32   index of the word
//               8 saved   Int64   what the word held before

export const OWNERS = 256
export const ENTRIES = 16
export const JOURNAL_BYTES = ENTRIES * 16

/**
 * A claim lasts some hundred instructions. If it does not go soon, its holder waits for the core that we run on, and
 * has to be let run.
 */
const SPINS = 256
const NAP_MS = 0.05
/**
 * 50 ms and more: on a machine with three runnable processes a core, a holder that lost its core is back after some 20
 * ms (seen in tests beside other load). Longer would only hold up the other requests of this worker: the primary learns
 * of a death within milliseconds.
 */
const NAPS = 1000

/** Nobody ever wakes a nap: it ends when its time is over. */
const nap = new Int32Array(new SharedArrayBuffer(4))

export class Claims {
  readonly claim: bigint
  private readonly kinds: Int32Array
  private readonly saved: BigInt64Array
  private stuckWord = -1
  private stuckClaim = 0n

  constructor(
    private readonly words: BigInt64Array,
    journal: { buffer: ArrayBuffer | SharedArrayBuffer; offset: number },
    readonly owner: number,
  ) {
    this.claim = BigInt(-1 - owner)
    this.kinds = new Int32Array(journal.buffer, journal.offset, JOURNAL_BYTES / 4)
    this.saved = new BigInt64Array(journal.buffer, journal.offset, JOURNAL_BYTES / 8)
  }

  /** Puts the claim where `expected` is. False: the word holds something else by now. */
  take(entry: number, kind: number, word: number, expected: bigint): boolean {
    this.saved[entry * 2 + 1] = expected
    this.kinds[entry * 4 + 1] = word
    this.kinds[entry * 4] = kind
    if (Atomics.compareExchange(this.words, word, expected, this.claim) === expected) return true
    this.kinds[entry * 4] = 0
    return false
  }

  /**
   * Ends a claim, with what the word is to hold. The caller says it, and it is not read from the journal: workers that
   * outlive their primary finish what is in flight, and their successors use the same journals meanwhile.
   */
  end(entry: number, word: number, value: bigint): void {
    Atomics.store(this.words, word, value)
    this.kinds[entry * 4] = 0
  }

  /** Waits until another worker's claim is gone. False: it stays. */
  outwait(word: number, claim: bigint): boolean {
    for (let i = 0; i < SPINS; i++) if (Atomics.load(this.words, word) !== claim) return true
    // It stayed before: do not wait again for each request.
    if (word === this.stuckWord && claim === this.stuckClaim) return false
    for (let i = 0; i < NAPS; i++) {
      Atomics.wait(nap, 0, 0, NAP_MS)
      if (Atomics.load(this.words, word) !== claim) return true
    }
    this.stuckWord = word
    this.stuckClaim = claim
    return false
  }

  /** Primary, once this owner is dead: its claims by kind, for the caller to undo. */
  left(undo: (kind: number, word: number, saved: bigint) => void): void {
    for (let entry = 0; entry < ENTRIES; entry++) {
      const kind = Atomics.load(this.kinds, entry * 4)
      const word = this.kinds[entry * 4 + 1] as number
      if (kind !== 0 && word >= 0 && word < this.words.length && Atomics.load(this.words, word) === this.claim) {
        undo(kind, word, this.saved[entry * 2 + 1] as bigint)
      }
      Atomics.store(this.kinds, entry * 4, 0)
    }
  }
}
