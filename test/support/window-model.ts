// A sliding window as anybody would write it, with every request that it has admitted: what the shared table is held
// against.

export class WindowModel {
  private readonly admitted: { readonly us: number; readonly units: number }[] = []
  private sum = 0

  constructor(
    readonly quantity: number,
    readonly windowUs: number,
  ) {}

  /** Units in the window that ends now: who came a whole window ago has left it. */
  inWindow(nowUs: number): number {
    for (
      let [first] = this.admitted;
      first !== undefined && first.us <= nowUs - this.windowUs;
      [first] = this.admitted
    ) {
      this.sum -= first.units
      this.admitted.shift()
    }
    return this.sum
  }

  add(units: number, nowUs: number): void {
    this.sum += units
    this.admitted.push({ us: nowUs, units })
  }
}
