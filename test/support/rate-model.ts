// GCRA as the textbook has it, in exact rational arithmetic: what the shared table is held against. One bucket per key,
// for ever.

export interface ModelTake {
  readonly key: string
  readonly quantity: number
  readonly windowSeconds: number
  readonly burst: number
  readonly cost: number
}

export class RateModel {
  /** By key: theoretical arrival time in µs × quantity, which makes the interval a whole number. */
  private readonly arrivals = new Map<string, bigint>()

  /** All of them admit and are charged, or none is. */
  admits(takes: readonly ModelTake[], nowUs: number): boolean {
    const next = takes.map(({ key, quantity, windowSeconds, burst, cost }) => {
      const now = BigInt(nowUs) * BigInt(quantity)
      const interval = BigInt(windowSeconds) * 1_000_000n
      const arrival = this.arrivals.get(key) ?? now
      const tat = (arrival > now ? arrival : now) + BigInt(cost) * interval
      return { key, tat, admitted: tat - now <= BigInt(burst) * interval }
    })
    if (!next.every(({ admitted }) => admitted)) return false
    for (const { key, tat } of next) this.arrivals.set(key, tat)
    return true
  }
}
