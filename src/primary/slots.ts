// Places in a shared table whose size was settled at start, given out by name: a name that stays keeps its place over
// every reload, and a place is given to another name only when no worker can still be using it for the one before.

export class Slots {
  private readonly byName = new Map<string, number>()

  constructor(readonly capacity: number) {}

  /**
   * A place for each name, or null, and nothing was changed, where there is not enough room.
   * @param inUse other names that workers may still have requests for
   * @param onTaken a place has a new name, before anybody is told of it
   */
  assign(
    names: readonly string[],
    inUse: ReadonlySet<string>,
    onTaken: (slot: number) => void = () => {},
  ): number[] | null {
    const wanted = new Set(names)
    const missing = [...wanted].filter((name) => !this.byName.has(name))
    const spare = [...this.byName.keys()].filter((name) => !wanted.has(name) && !inUse.has(name))
    const short = this.byName.size + missing.length - this.capacity
    if (short > spare.length) return null
    for (const name of spare.slice(0, Math.max(0, short))) this.byName.delete(name)
    const taken = new Set(this.byName.values())
    let next = 0
    for (const name of missing) {
      while (taken.has(next)) next++
      taken.add(next)
      this.byName.set(name, next)
      onTaken(next)
    }
    return names.map((name) => this.byName.get(name) as number)
  }
}
