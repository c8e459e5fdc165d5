// The answers on one connection, one after the other, from text in any split. Reads strictly what is known to be an
// answer of a given method; of the others it does not know whether they have a body, but no body here begins as an
// answer does.

export interface AnswerHead {
  /** From 0; 1xx have none of their own. */
  readonly index: number
  readonly status: number
  /** It says that the connection ends. */
  readonly closes: boolean
  /** Its body ends with the connection. */
  readonly toTheEnd: boolean
  readonly seen: string | null
  /** Its lines, each with its CRLF. */
  readonly text: string
}

export class AnswerStream {
  /** Heads of final answers so far. */
  answers = 0
  continues = 0
  private text = ''
  /** Of the body. */
  private due: '' | 'bytes' | 'chunks' = ''
  private bodyBytes = 0
  private mayBeBodiless = false
  private toTheEnd = false

  /**
   * @param methodOf the method of the request with that index; undefined where that is not known
   * @param onHead told of each final answer
   * @param onFault told once, of what is no answer: nothing is read any more
   */
  constructor(
    private readonly methodOf: (index: number) => string | undefined,
    private readonly onHead: (answer: AnswerHead) => void,
    private readonly onFault: (what: string) => void,
  ) {}

  /** Nothing of an answer is missing. */
  get complete(): boolean {
    return this.text === '' && (this.due === '' || this.mayBeBodiless)
  }

  feed(text: string): void {
    if (this.toTheEnd) return
    this.text += text
    while (this.text !== '' && this.step());
  }

  private step(): boolean {
    if (this.mayBeBodiless && this.text[0] === 'H') this.due = ''
    if (this.due === '') return this.readHead()
    this.mayBeBodiless = false
    if (this.due === 'chunks') return this.readChunk()
    const part = Math.min(this.bodyBytes, this.text.length)
    this.bodyBytes -= part
    this.text = this.text.slice(part)
    if (this.bodyBytes === 0) this.due = ''
    return true
  }

  private readHead(): boolean {
    const end = this.text.indexOf('\r\n\r\n')
    if (end < 0) {
      if (!this.text.startsWith('HTTP/1.1 ') && !'HTTP/1.1 '.startsWith(this.text)) this.fault()
      return false
    }
    const head = this.text.slice(0, end + 2)
    const [, digits] = /^HTTP\/1\.1 ([1-9]\d\d) [\t -~\x80-\xff]*\r\n/.exec(head) ?? []
    if (digits === undefined) return this.fault()
    this.text = this.text.slice(end + 4)
    const status = Number(digits)
    if (status < 200) {
      this.continues++
      return true
    }
    const index = this.answers++
    const closes = /\r\nconnection: close\r\n/i.test(head)
    const isChunked = /\r\ntransfer-encoding: chunked\r\n/i.test(head)
    const length = /\r\ncontent-length: (\d+)\r\n/i.exec(head)?.[1]
    const method = this.methodOf(index)
    this.bodyBytes = Number(length ?? 0)
    const bodiless = method === 'HEAD' || status === 204 || status === 304
    this.due = bodiless ? '' : isChunked ? 'chunks' : this.bodyBytes > 0 ? 'bytes' : ''
    this.mayBeBodiless = method === undefined && this.due !== ''
    const toTheEnd = length === undefined && !isChunked && !bodiless
    const seen = /\r\nx-seen: ([^\r]*)\r\n/i.exec(head)?.[1] ?? null
    this.onHead({ index, status, closes, toTheEnd, seen, text: head })
    if (isChunked && length !== undefined) return this.fault()
    if (!toTheEnd) return true
    if (!closes) return this.fault()
    this.text = ''
    this.toTheEnd = true
    return false
  }

  private readChunk(): boolean {
    const [line, digits] = /^([0-9a-f]+)\r\n/i.exec(this.text) ?? []
    if (line === undefined) return /^[0-9a-f]*\r?$/i.test(this.text) ? false : this.fault()
    const bytes = Number.parseInt(digits!, 16)
    const end = line.length + bytes + 2
    if (this.text.length < end) return false
    if (!this.text.startsWith('\r\n', end - 2)) return this.fault()
    this.text = this.text.slice(end)
    if (bytes === 0) this.due = ''
    return true
  }

  private fault(): false {
    this.onFault(`what is no answer: ${JSON.stringify(this.text.slice(0, 200))}`)
    this.text = ''
    this.toTheEnd = true
    return false
  }
}
