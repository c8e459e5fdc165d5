// The fields of a request, left in the text of its head and cut out of it only when a phase asks for one. Made in
// accept.ts. Runs per request: a field that goes on to the service unchanged is never cut out at all
// (handlers/proxy/headers.ts).
import { NOT_ASCII } from '../config/patterns.js'

/**
 * Names with a number of their own: some phase looks at them in most requests, or they do not go on to the service
 * unchanged. No underscores.
 */
export const NUMBERED = [
  // Those that accept.ts reads come first: it passes over all others after one look at the number.
  'host',
  'content-length',
  'transfer-encoding',
  'connection',
  'expect',
  'x-timeout-ms',
  'grpc-timeout',
  'upgrade',
  'x-source',
  'x-time',
  'x-m',
  'x-rid',
  'authorization',
  'via',
  'traceparent',
  'tracestate',
  'forwarded',
  'x-forwarded-for',
  'x-forwarded-proto',
  'x-forwarded-host',
  'x-consumer-username',
  'keep-alive',
  'proxy-connection',
  'proxy-authenticate',
  'proxy-authorization',
  'te',
  'trailer',
  // Most requests have these, and no phase looks at them.
  'user-agent',
  'accept',
  'accept-encoding',
  'accept-language',
  'content-type',
  'cookie',
  'cache-control',
  'referer',
  'origin',
] as const

export type NumberedName = (typeof NUMBERED)[number]

/** By number, from 1; 0 is any other name. */
const numbers = new Map<string, number>(NUMBERED.map((name, at) => [name, at + 1]))

export function numberOf(name: NumberedName): number {
  return numbers.get(name)!
}

/**
 * A mark for each field: the number of its name, and where its line, its value and that value's end are in the text.
 */
export const MARKS = 4
export const LINE = 1
const VALUE = 2
export const END = 3

/** What the gate says of a whole head, before its fields' marks (native/src/uws/head_marks.h). */
export const HEAD = { fields: 0, looks: 1, methodEnd: 2, pathEnd: 3, targetEnd: 4, authority: 5, marks: 6 } as const

/**
 * In `looks`: some field has fewer or more blanks than `name: value`, something else than letters, digits and `-` in
 * its name, not only ASCII or a DEL in its value.
 */
export const LOOKS = { blanks: 1, oddName: 2, wide: 4, del: 8 } as const

const ODD_NAME = /[^a-z0-9-]/

/**
 * The same text as a string of its own. V8 keeps a joined string as a tree, which it walks whenever it is written, and
 * a substring as a view that keeps the whole other string alive. Latin1.
 */
export function inOnePiece(text: string): string {
  return Buffer.from(text, 'latin1').latin1Slice()
}

export class Fields {
  /**
   * Holds a line `name: value CRLF` for each field, with its name in lower case, a character a byte. May hold more than
   * the marked fields.
   */
  text: string
  /** In order of arrival, MARKS numbers each. */
  readonly marks: number[]
  /** Of LOOKS. */
  readonly looks: number
  private listed: string[] | null = null

  private constructor(text: string, marks: number[], looks: number) {
    this.text = text
    this.marks = marks
    this.looks = looks
  }

  /** From a head as the gate has read it. */
  static ofHead(text: string, head: Int32Array): Fields {
    const end = HEAD.marks + head[HEAD.fields]! * MARKS
    const marks: number[] = []
    for (let i: number = HEAD.marks; i < end; i++) marks.push(head[i]!)
    const looks = head[HEAD.looks]!
    return (looks & LOOKS.blanks) === 0 ? new Fields(text, marks, looks) : tidied(text, marks)
  }

  /** From name, value, name, value … */
  static of(pairs: readonly string[]): Fields {
    const marks: number[] = []
    let text = ''
    let looks = 0
    for (let i = 0; i < pairs.length; i += 2) {
      const name = pairs[i] as string
      const value = pairs[i + 1] as string
      if (ODD_NAME.test(name)) looks |= LOOKS.oddName
      if (value.includes('\x7f')) looks |= LOOKS.del
      if (NOT_ASCII.test(value)) looks |= LOOKS.wide
      const line = text.length
      text += `${name}: ${value}\r\n`
      marks.push(numbers.get(name) ?? 0, line, line + name.length + 2, text.length - 2)
    }
    return new Fields(text, marks, looks)
  }

  /** The field's own bytes; `i` is where its mark begins. */
  valueAt(i: number): string {
    return this.text.substring(this.marks[i + VALUE]!, this.marks[i + END]!)
  }

  nameAt(i: number): string {
    return this.text.substring(this.marks[i + LINE]!, this.marks[i + VALUE]! - 2)
  }

  /** First value of that name, in lower case; '' where there is none. */
  get(name: string): string {
    const { marks } = this
    const number = numbers.get(name) ?? 0
    for (let i = 0; i < marks.length; i += MARKS) {
      if (marks[i] === number && (number > 0 || this.isNamed(i, name))) return this.valueAt(i)
    }
    return ''
  }

  /** The value of that name; '' where there is none, null where it comes several times. */
  sole(name: string): string | null {
    const { marks } = this
    const number = numbers.get(name) ?? 0
    let at = -1
    for (let i = 0; i < marks.length; i += MARKS) {
      if (marks[i] !== number || (number === 0 && !this.isNamed(i, name))) continue
      if (at >= 0) return null
      at = i
    }
    return at < 0 ? '' : this.valueAt(at)
  }

  /** All values of that name as one list, in order of arrival (RFC 9110, 5.3); '' where there are none. */
  list(name: NumberedName): string {
    const { marks } = this
    const number = numberOf(name)
    let list = ''
    for (let i = 0; i < marks.length; i += MARKS) if (marks[i] === number) list = listed(list, this.valueAt(i))
    return list
  }

  /** name, value, name, value … in order of arrival. */
  get pairs(): readonly string[] {
    if (this.listed === null) {
      this.listed = []
      for (let i = 0; i < this.marks.length; i += MARKS) this.listed.push(this.nameAt(i), this.valueAt(i))
    }
    return this.listed
  }

  /** As if the client had not sent the field. */
  drop(i: number): void {
    this.marks.splice(i, MARKS)
  }

  /** Another value, in ASCII, for the field at `i`. */
  replace(i: number, value: string): void {
    const line = this.text.length
    const name = this.nameAt(i)
    this.text += `${name}: ${value}\r\n`
    this.marks[i + LINE] = line
    this.marks[i + VALUE] = line + name.length + 2
    this.marks[i + END] = this.text.length - 2
  }

  isNamed(i: number, name: string): boolean {
    const line = this.marks[i + LINE]!
    return this.marks[i + VALUE]! - 2 - line === name.length && this.text.startsWith(name, line)
  }
}

/** One more line of a field that is a list. */
export function listed(list: string, value: string): string {
  return list === '' ? value : value === '' ? list : `${list}, ${value}`
}

/** Each line written as the service gets it: one blank behind the colon and none at the end. */
function tidied(text: string, marks: readonly number[]): Fields {
  const pairs: string[] = []
  for (let i = 0; i < marks.length; i += MARKS) {
    const line = marks[i + LINE]!
    const value = text.substring(marks[i + VALUE]!, marks[i + END]!)
    pairs.push(text.substring(line, text.indexOf(':', line)), value)
  }
  return Fields.of(pairs)
}
