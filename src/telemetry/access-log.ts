// Writes one line per finished exchange, the last step of its way. Runs per request: the line is built by hand, around
// two parts that most lines share with the one before them, and written in batches. It reads the exchange and changes
// nothing; no header ever gets here, so no signature or secret can.
//
// A line is JSON in pino's shape and ASCII alone: a character is a byte, so lengths need no counting and a write cut
// short cannot split a character. What does not apply to an exchange (no consumer, no upstream, no code) is left out.
import type { Consumer, Endpoint, Route, Service } from '../config/compile.js'
import { hidden } from '../config/parameter.js'
import type { Exchange } from '../exchange/exchange.js'
import { inOnePiece } from '../exchange/fields.js'
import { LineWriter, type LineWriterOptions } from './line-writer.js'
import { openSink } from './sink.js'

/** Longest text of each kind after escaping. With names and numbers, a line stays below PIPE_BUF, 4096 bytes. */
const MAX_PATH = 1536
const MAX_QUERY = 768
const MAX_METHOD = 32
const MAX_NAME = 160
const MAX_REASON = 128
/** A name from the configuration or a credential. */
const MAX_TRIED = 64
/** Ends a text that was cut: an ellipsis. */
const CUT = '\\u2026'

function escaped(c: number): string {
  if (c === 0x22) return '\\"'
  if (c === 0x5c) return '\\\\'
  return `\\u${c.toString(16).padStart(4, '0')}`
}

/** Escapes a text for the inside of a JSON string, at most `max` characters. Any input gives valid JSON. */
export function jsonText(text: string, max: number): string {
  const length = text.length
  if (length <= max) {
    let i = 0
    for (; i < length; i++) {
      const c = text.charCodeAt(i)
      if (c < 0x20 || c > 0x7e || c === 0x22 || c === 0x5c) break
    }
    if (i === length) return text
  }
  return escapeSlow(text, max)
}

function escapeSlow(text: string, max: number): string {
  // A lone surrogate becomes U+FFFD: escaped, it would be valid JSON that half of the parsers refuse.
  let out = ''
  for (const char of text.slice(0, max + 1)) {
    let piece = char
    if (char < ' ' || char > '~' || char === '"' || char === '\\') {
      piece = ''
      if (char >= '\ud800' && char <= '\udfff' && char.length === 1) piece = '\\ufffd'
      else for (let i = 0; i < char.length; i++) piece += escaped(char.charCodeAt(i))
    }
    if (out.length + piece.length > max) return cut(out, max)
    out += piece
  }
  return out
}

/**
 * Makes room for the ellipsis without halving an escape: no escape is longer than a surrogate pair's twelve characters.
 */
function cut(out: string, max: number): string {
  let end = max - CUT.length
  const escapes = /(?:\\u[dD][89abAB][0-9a-f]{2}\\u[0-9a-f]{4}|\\u[0-9a-f]{4}|\\["\\])/g
  escapes.lastIndex = 0
  for (let match = escapes.exec(out); match !== null && match.index < end; match = escapes.exec(out)) {
    if (escapes.lastIndex > end) end = match.index
  }
  return out.slice(0, end) + CUT
}

const THREE_DIGITS = Array.from({ length: 1000 }, (_, n) => String(n).padStart(3, '0'))
/** The part of a line from the time's last digits to the rid. */
const MS_OF_SECOND = THREE_DIGITS.map((digits) => inOnePiece(`${digits},"rid":"`))

/** Cached texts of durations up to 16 ms: most requests take no longer. */
const shortMs: string[] = new Array(16_000).fill('')

/**
 * Formats microseconds as milliseconds with three decimals, without float formatting, which costs more than the rest of
 * the line.
 */
function ms(us: number): string {
  if (us <= 0) return '0'
  const wholeUs = Math.floor(us)
  const known = wholeUs < shortMs.length ? (shortMs[wholeUs] as string) : ''
  if (known !== '') return known
  const whole = Math.floor(wholeUs / 1000)
  const text = `${whole}.${THREE_DIGITS[wholeUs - whole * 1000]}`
  if (wholeUs < shortMs.length) shortMs[wholeUs] = inOnePiece(text)
  return text
}

export class AccessLog {
  private readonly caller = { consumer: null as Consumer | null, tried: '', clientAddress: '', method: '', text: '' }
  private readonly outcome = {
    route: null as Route | null,
    service: null as Service | null,
    endpoint: null as Endpoint | null,
    status: -1,
    code: '',
    reason: '',
    fallback: '',
    limitReported: false,
    text: '',
  }
  private readonly bytes = { in: -1, out: -1, text: '' }
  private second = -1
  private secondText = ''

  constructor(
    private readonly writer: LineWriter,
    /** Null if the target is not a file. */
    private readonly path: string | null = null,
  ) {}

  /** Lines lost because their reader lags or fails. */
  get dropped(): number {
    return this.writer.dropped
  }

  /** @param nowUs the segment's clock (wall-clock µs) at the end of the exchange */
  write(exchange: Exchange, nowUs: number): void {
    const route = exchange.route
    if (route !== null && !route.accessLog) return
    this.writer.write(this.format(exchange, nowUs))
  }

  format(exchange: Exchange, nowUs: number): string {
    const nowMs = Math.floor(nowUs / 1000)
    const second = Math.floor(nowMs / 1000)
    if (second !== this.second) {
      this.second = second
      this.secondText = `{"level":30,"time":${second}`
    }
    const path = jsonText(exchange.path, MAX_PATH)
    const query =
      exchange.query !== '' && exchange.route?.logQuery ? `","query":"${jsonText(shownQuery(exchange), MAX_QUERY)}` : ''
    const upstream = exchange.attempts > 0 ? `,"upstreamMs":${ms(exchange.upstreamUs)}` : ''
    const attempts = exchange.attempts === 1 ? ',"attempts":1}\n' : attemptsOf(exchange)
    // One expression of few parts: each part is a branch of the tree that V8 keeps and walks. The rid is hex
    // (trace.ts).
    return (
      this.secondText +
      MS_OF_SECOND[nowMs - second * 1000] +
      exchange.rid +
      this.callerOf(exchange) +
      path +
      query +
      this.outcomeOf(exchange) +
      this.bytesOf(exchange) +
      ms(nowUs - exchange.startUs) +
      upstream +
      attempts
    )
  }

  /** The part from the outcome to the duration. Reused from the last line if the byte counts are equal. */
  private bytesOf({ bytesIn, bytesOut }: Exchange): string {
    const last = this.bytes
    if (last.in !== bytesIn || last.out !== bytesOut) {
      last.in = bytesIn
      last.out = bytesOut
      last.text = inOnePiece(`,"bytesIn":${bytesIn},"bytesOut":${bytesOut},"totalMs":`)
    }
    return last.text
  }

  /** The part from the rid's end to the path. Reused from the last line if the caller is the same. */
  private callerOf({ consumer, tried, clientAddress, method }: Exchange): string {
    const last = this.caller
    if (
      last.consumer !== consumer ||
      last.clientAddress !== clientAddress ||
      last.method !== method ||
      last.tried !== tried
    ) {
      let who = ''
      if (consumer !== null) who = `,"consumer":"${jsonText(consumer.name, MAX_NAME)}"`
      else if (tried !== '') who = `,"tried":"${jsonText(tried, MAX_TRIED)}"`
      last.consumer = consumer
      last.tried = tried
      last.clientAddress = clientAddress
      last.method = method
      last.text = inOnePiece(
        `"${who},"client":"${jsonText(clientAddress, MAX_NAME)}","method":"${jsonText(method, MAX_METHOD)}","path":"`,
      )
    }
    return last.text
  }

  /** The part from the path to the numbers. Reused from the last line if service, endpoint and outcome are equal. */
  private outcomeOf(exchange: Exchange): string {
    // The service that was asked last: with a fallback service, that one and not the route's.
    const { route, service, endpoint, status, reason, fallback, limitReported } = exchange
    const last = this.outcome
    if (
      last.route !== route ||
      last.service !== service ||
      last.endpoint !== endpoint ||
      last.status !== status ||
      last.reason !== reason ||
      last.fallback !== fallback ||
      last.limitReported !== limitReported ||
      last.code !== exchange.code
    ) {
      const handler = fallback === '' ? route?.handler : route?.fallback
      const where = route === null ? '' : `,"route":"${jsonText(route.name, MAX_NAME)}"`
      const by = service === null ? '' : `,"service":"${jsonText(service.name, MAX_NAME)}"`
      const to = endpoint === null ? '' : `,"endpoint":"${jsonText(endpoint.origin, MAX_NAME)}"`
      const code = exchange.code === '' ? '' : `,"code":"${exchange.code}"`
      const why = reason === '' ? '' : `,"reason":"${jsonText(reason, MAX_REASON)}"`
      const instead = fallback === '' ? '' : `,"fallback":"${fallback}"`
      // A handler that forwards to one service is named by that.
      const answered = handler && handler.service === null ? `,"handler":"${jsonText(handler.kind, MAX_NAME)}"` : ''
      const reported = limitReported ? ',"limitReported":true' : ''
      last.route = route
      last.service = service
      last.endpoint = endpoint
      last.status = status
      last.code = exchange.code
      last.reason = reason
      last.fallback = fallback
      last.limitReported = limitReported
      last.text = inOnePiece(`"${where}${by}${to},"status":${status}${code}${why}${instead}${answered}${reported}`)
    }
    return last.text
  }

  /**
   * From now on, lines go to the file that now has this path. Calls back when nothing is written to the former file any
   * more, or with the reason why they still go there.
   */
  reopen(done: (problem: string) => void): void {
    if (this.path === null) return done('')
    try {
      this.writer.moveTo(openSink(this.path), () => done(''))
    } catch (error) {
      done(cannotWrite(this.path, error as Error))
    }
  }

  /** Calls back when everything written so far is out, or after a second. */
  flush(done: () => void): void {
    this.writer.flush(done)
  }

  /** Like flush, then closes the file. Lines written later count as dropped. */
  close(done: () => void): void {
    this.writer.close(done)
  }
}

function attemptsOf({ attempts, retried }: Exchange): string {
  return retried === '' ? `,"attempts":${attempts}}\n` : `,"attempts":${attempts},"retried":"${retried}"}\n`
}

/** API keys in the query are hidden on every route: a key sent to the wrong route is valid elsewhere. */
function shownQuery({ route, query }: Exchange): string {
  const parameter = route?.hiddenParameter ?? null
  return parameter === null ? query : hidden(query, parameter)
}

/**
 * @param target `stdout`, `off`, or a path to append to
 * @returns null for `off`
 * @throws Error naming TIDEGATE_ACCESS_LOG if the path cannot be opened
 */
/** `stdoutFd` is the descriptor of stdout in this process. */
export function createAccessLog(target: string, options: LineWriterOptions = {}, stdoutFd = 1): AccessLog | null {
  if (target === 'off') return null
  let sink: ReturnType<typeof openSink>
  try {
    sink = openSink(target, stdoutFd)
  } catch (error) {
    throw new Error(cannotWrite(target, error as Error), { cause: error })
  }
  return new AccessLog(new LineWriter(sink, options), target === 'stdout' ? null : target)
}

function cannotWrite(target: string, { message }: Error): string {
  return `TIDEGATE_ACCESS_LOG: cannot write to ${target}: ${message}`
}
