// Gathers chunks in one piece of memory that grows with what arrives, always by a share of itself. So each byte is
// copied a few times at most, and many small chunks take at most twice the memory of their bytes. Runs per chunk of a
// body that is held.

const nothing = Buffer.alloc(0)

export class GatheredBytes {
  length = 0
  private memory: Buffer = nothing

  /** The memory it takes, in bytes. */
  get capacity(): number {
    return this.memory.length
  }

  /** @param expected how many bytes there may be in the end: doubling stops there */
  append(chunk: ArrayBuffer, expected: number): void {
    const bytes = new Uint8Array(chunk)
    const length = this.length + bytes.length
    // Most bodies arrive in one chunk.
    if (this.length === 0) this.memory = Buffer.from(bytes)
    else {
      if (length > this.memory.length) this.grow(length, expected)
      this.memory.set(bytes, this.length)
    }
    this.length = length
  }

  private grow(length: number, expected: number): void {
    const { capacity } = this
    const more = length <= expected ? Math.min(2 * capacity, expected) : Math.ceil(1.25 * capacity)
    const grown = Buffer.allocUnsafeSlow(Math.max(length, more))
    this.memory.copy(grown, 0, 0, this.length)
    this.memory = grown
  }

  /** All so far. More is gathered behind it. */
  get bytes(): Buffer {
    return this.length === this.memory.length ? this.memory : this.memory.subarray(0, this.length)
  }

  /** All so far, and begins anew. */
  take(): Buffer {
    const { bytes } = this
    this.clear()
    return bytes
  }

  clear(): void {
    this.memory = nothing
    this.length = 0
  }
}
