// The static handler: the gateway itself answers, with the same response each time. It asks no upstream. Runs per
// request; the head is prepared when the generation begins.
import { STATUS_CODES } from 'node:http'
import type { StaticRules } from '../config/compile.js'
import { bytesOf } from '../config/patterns.js'
import { answerWith } from '../downstream/answer.js'
import type { Exchange } from '../exchange/exchange.js'
import { HeadLines, type StatusLine, statusLine } from '../exchange/response-head.js'
import type { Handler, HandlerContext } from './handler.js'

export class StaticHandler implements Handler {
  readonly needsBody = false
  private readonly context: HandlerContext
  private readonly line: StatusLine
  private readonly lines: HeadLines
  private readonly body: Buffer

  constructor(context: HandlerContext, { status, headers, body }: StaticRules) {
    let text = ''
    for (let i = 0; i < headers.length; i += 2) text += `\r\n${headers[i]}: ${bytesOf(headers[i + 1]!)}`
    this.context = context
    this.line = statusLine(status, STATUS_CODES[status] ?? '')
    this.lines = new HeadLines(text)
    this.body = body
  }

  handle(exchange: Exchange): void {
    exchange.upload?.drop()
    answerWith(exchange, this.line, this.lines, this.body)
    this.context.conclude(exchange)
  }
}
