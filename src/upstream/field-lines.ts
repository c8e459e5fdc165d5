// The fields of an upstream request as text. The lean client writes it as it is; undici, which knows no such thing, is
// given the pairs.

/**
 * A line `name: value CRLF` for each field, a character a byte. Whoever makes one vouches for it: no line ends but
 * where it should.
 */
export class FieldLines implements Iterable<[string, string]> {
  readonly text: string
  /** The value of Content-Length, which is not in the text: -1 for none. */
  readonly contentLength: number

  constructor(text: string, contentLength: number) {
    this.text = text
    this.contentLength = contentLength
  }

  *[Symbol.iterator](): Iterator<[string, string]> {
    const { text } = this
    for (let line = 0; line < text.length; ) {
      const colon = text.indexOf(': ', line)
      const end = text.indexOf('\r\n', colon)
      yield [text.substring(line, colon), text.substring(colon + 2, end)]
      line = end + 2
    }
    if (this.contentLength >= 0) yield ['content-length', String(this.contentLength)]
  }
}
