// The head of a response as uWebSockets.js takes it. Status line and fields go to it as one status: it writes that as
// it is, and a call costs more than the bytes do. Runs per response.
import type { HttpResponse } from 'uWebSockets.js'
import type { HeadLines, StatusLine } from '../../exchange/response-head.js'

/** A head up to this long and a body of MOST_WHOLE_BYTES fit one cork, with room for the fields that uWS adds. */
export const MOST_HEAD_BYTES = 5000

export function headOf(line: StatusLine, lines: HeadLines, own: string): string | Buffer {
  const head = line.text + lines.text + own
  // uWS encodes strings as UTF-8 while phrases and values are bytes: they must leave as they came.
  const isWide = line.isWide || lines.isWide
  return isWide && head.length <= MOST_HEAD_BYTES ? Buffer.from(head, 'latin1') : head
}

/**
 * As many lines at a time as a cork has room for; neither upstream client takes a head longer than that. A head may
 * have thousands of lines, and a call for each takes milliseconds.
 */
export function writeLongHead(res: HttpResponse, head: string): void {
  const statusEnd = head.indexOf('\r\n')
  res.cork(() => {
    res.writeStatus(Buffer.from(head.substring(0, statusEnd), 'latin1'))
  })
  for (let from = statusEnd + 2; from < head.length; ) {
    // Whole lines that fit, or one line that does not.
    let end = head.length
    if (end - from > MOST_HEAD_BYTES) end = head.lastIndexOf('\r\n', from + MOST_HEAD_BYTES)
    if (end <= from) end = head.indexOf('\r\n', from)
    if (end < 0) end = head.length
    const colon = head.indexOf(': ', from)
    const name = head.substring(from, colon)
    const rest = Buffer.from(head.substring(colon + 2, end), 'latin1')
    res.cork(() => {
      res.writeHeader(name, rest)
    })
    from = end + 2
  }
}
