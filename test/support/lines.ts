// Lines that somebody else writes, to be looked through and waited for: the tests' alternative to sleeping until a line
// ought to be there.

/** Far above what a loaded machine takes. Only a test that fails waits for so long. */
const WITHIN_MS = 20_000

export class Lines<T> {
  readonly all: T[] = []
  private readonly waiting = new Set<() => void>()

  constructor(private readonly kind: string) {}

  push(line: T): void {
    this.all.push(line)
    for (const look of [...this.waiting]) look()
  }

  /** The first line that fits, whether it is there already or comes yet. */
  async find(fits: (line: T) => boolean, what: string, withinMs = WITHIN_MS): Promise<T> {
    const [line] = await this.take(1, fits, what, withinMs)
    return line as T
  }

  /** The first `count` of those that fit. */
  take(count: number, fits: (line: T) => boolean, what: string, withinMs = WITHIN_MS): Promise<T[]> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = this.all.filter(fits)
        if (found.length < count) return
        clearTimeout(deadline)
        this.waiting.delete(look)
        resolve(found.slice(0, count))
      }
      const deadline = setTimeout(() => {
        this.waiting.delete(look)
        const last = this.all.slice(-8).map((line) => JSON.stringify(line))
        reject(new Error(`no ${this.kind} for ${what} within ${withinMs} ms; the last are\n${last.join('\n')}`))
      }, withinMs)
      this.waiting.add(look)
      look()
    })
  }
}
