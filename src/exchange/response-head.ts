// The head of a response as a downstream takes it: a status and header fields, prepared once and used for every
// response that has the same ones. An implementation may keep what it makes of them by their identity. Runs per
// request.
import { NOT_ASCII } from '../config/patterns.js'

/** A status, and its line where a protocol has one. */
export class StatusLine {
  readonly status: number
  /** `200 OK`: a character a byte. */
  readonly text: string
  /** The text has bytes over 127. */
  readonly isWide: boolean

  constructor(status: number, phrase: string) {
    this.status = status
    this.text = `${status} ${phrase}`
    this.isWide = NOT_ASCII.test(this.text)
  }
}

/** Header fields, or trailers. Whoever makes them vouches for them: no line ends but where it should. */
export class HeadLines {
  /**
   * `CRLF name: value` for each field, a character a byte. Without those of the connection, and without Content-Length.
   */
  readonly text: string
  /** The text has bytes over 127. */
  readonly isWide: boolean

  constructor(text: string) {
    this.text = text
    this.isWide = NOT_ASCII.test(text)
  }
}

/** The usual one of each status. */
const statusLines = new Map<number, StatusLine>()

/** RFC 9112, 4: the phrase has no meaning, so an upstream's own is passed on and an empty one stays empty. */
export function statusLine(status: number, phrase: string): StatusLine {
  const known = statusLines.get(status)
  if (known !== undefined && known.text.length === phrase.length + 4 && known.text.endsWith(phrase)) return known
  const line = new StatusLine(status, phrase)
  if (statusLines.size < 600 && !line.isWide) statusLines.set(status, line)
  return line
}
