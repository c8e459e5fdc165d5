// Who was counted most often, over more names than memory may hold. Exact up to MOST_NAMES names; beyond that, new
// names are counted together. Pure.

const MOST_NAMES = 10_000

export interface Top {
  readonly name: string
  readonly count: number
}

export class TopCounts {
  total = 0
  /** Of names for which there was no room. */
  others = 0
  private readonly counts = new Map<string, number>()

  add(name: string): void {
    this.total++
    const count = this.counts.get(name)
    if (count !== undefined || this.counts.size < MOST_NAMES) this.counts.set(name, (count ?? 0) + 1)
    else this.others++
  }

  of(name: string): number {
    return this.counts.get(name) ?? 0
  }

  get names(): number {
    return this.counts.size
  }

  /** The largest first. */
  top(most: number): Top[] {
    return [...this.counts]
      .map(([name, count]) => ({ name, count }))
      .sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1))
      .slice(0, most)
  }
}
