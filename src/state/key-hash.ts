// A seeded 128-bit hash of the things a bucket is kept for. Pure; runs per request, so it keeps its state in fields and
// allocates nothing. The rate table takes a slot's place, tag and fingerprint from it; nothing else may rely on its
// values.
//
// The round is HalfSipHash's: four 32-bit words, made for hash tables whose keys strangers choose. One round a word,
// three to finish, and all four words kept: the permutation loses nothing, so two keys share a result about once in
// 2^128 pairs. Among 10^6 keys that are live at once the odds that any two do are below 10^-26, and without the seed
// (random per segment, never shown) none can be made to.
//
// Every part ends with a word that holds its kind and length: read from the end, parts come apart in one way only, so
// ('ab', 'c') and ('a', 'bc') differ, and so do the text '1' and the number 1.

export class KeyHash {
  a = 0
  b = 0
  c = 0
  d = 0

  /** Starts from another hash as it stands: what all keys of a policy begin with is hashed once. */
  from(start: KeyHash): this {
    this.a = start.a
    this.b = start.b
    this.c = start.c
    this.d = start.d
    return this
  }

  seed(a: number, b: number, c: number, d: number): this {
    this.a = a ^ 0x736f6d65
    this.b = b ^ 0x646f7261
    this.c = c ^ 0x6c796765
    this.d = d ^ 0x74656462
    return this
  }

  word(m: number): this {
    let { a, b, c, d } = this
    d ^= m
    a = (a + b) | 0
    c = (c + d) | 0
    b = ((b << 5) | (b >>> 27)) ^ a
    d = ((d << 8) | (d >>> 24)) ^ c
    a = (((a << 16) | (a >>> 16)) + d) | 0
    c = (c + b) | 0
    d = ((d << 7) | (d >>> 25)) ^ a
    b = ((b << 13) | (b >>> 19)) ^ c
    c = (c << 16) | (c >>> 16)
    this.a = a ^ m
    this.b = b
    this.c = c
    this.d = d
    return this
  }

  /** Any string, two UTF-16 units a word: unpaired surrogates are as good as the rest. */
  text(text: string): this {
    let { a, b, c, d } = this
    const length = text.length
    for (let i = 0; i < length; i += 2) {
      const m = text.charCodeAt(i) | (i + 1 < length ? text.charCodeAt(i + 1) << 16 : 0)
      d ^= m
      a = (a + b) | 0
      c = (c + d) | 0
      b = ((b << 5) | (b >>> 27)) ^ a
      d = ((d << 8) | (d >>> 24)) ^ c
      a = (((a << 16) | (a >>> 16)) + d) | 0
      c = (c + b) | 0
      d = ((d << 7) | (d >>> 25)) ^ a
      b = ((b << 13) | (b >>> 19)) ^ c
      c = (c << 16) | (c >>> 16)
      a ^= m
    }
    this.a = a
    this.b = b
    this.c = c
    this.d = d
    return this.word(length | 0x10000000)
  }

  /** @param kind 2 to 7: keeps numbers that stand for different things apart. */
  pair(kind: number, high: number, low: number): this {
    return this.word(high)
      .word(low)
      .word(kind << 28)
  }

  finish(): this {
    this.c ^= 0xee
    return this.word(0).word(0).word(0)
  }
}
