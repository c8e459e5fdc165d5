// The client's side of an exchange over HTTP/1.1, as uWebSockets.js speaks it: here is its response, the request's side
// is request.ts. The only writer to the client. Runs per request. Every write happens inside one cork, so that head and
// body leave in one system call.
//
// uWS gathers a cork's writes in 16 KiB and flushes those before a write that does not fit. Where that flush meets a
// full socket, 20.51 loses the write and tells nobody but tryEnd's caller (uWebSockets 6b7f354 mends it). So no cork is
// given more than it holds, except by tryEnd.
//
// uWS sends no interim response but 100 Continue, and no trailers. WebSocket is refused with the head (accept.ts).
import type { HttpResponse } from 'uWebSockets.js'
import type { Downstream, DrainListener, Tunnel } from '../../exchange/downstream.js'
import type { HeadLines, StatusLine } from '../../exchange/response-head.js'
import { MOST_WHOLE_BYTES } from '../answer.js'
import { isLastWrite } from './gate.js'
import { headOf, MOST_HEAD_BYTES, writeLongHead } from './head.js'
import { UwsRequest } from './request.js'

/** The longest chunk that fits a cork together with its framing. */
const CORK_CHUNK_BYTES = 16_384 - 32

export class UwsDownstream extends UwsRequest implements Downstream {
  // Of a response whose body comes in parts.
  /**
   * The part of the head that is not written yet: '' if that is only `Connection`. Null before start(), and once all of
   * it is written.
   */
  private head: string | Buffer | null = null
  /** -1: chunked. */
  private length = -1
  private listener: DrainListener | null = null
  /** The client must take what uWS has before more is written. */
  private waiting = false
  /**
   * The part of the last chunk that uWS did not take. Only with a declared length: uWS itself buffers chunked writes.
   */
  private pending: Buffer | null = null
  private pendingOffset = 0

  get drained(): boolean {
    return this.pending === null
  }

  respond(line: StatusLine, lines: HeadLines, own: string, body: Buffer | string | null, length: number): void {
    const { res } = this
    if (res === null) return
    const head = this.beginHead(res, headOf(line, lines, own))
    if (typeof body === 'object' && body !== null && body.length > MOST_WHOLE_BYTES && !this.isHead) {
      return this.respondInParts(res, head, body)
    }
    // Before it is watched an exchange is in uWS's own handler, which is a cork.
    if (!this.watched) this.writeWhole(res, head, body, length)
    else {
      try {
        res.cork(() => this.writeWhole(res, head, body, length))
      } finally {
        isLastWrite[0] = 0
      }
    }
    if (body === null) this.completeUntold()
    else this.complete()
  }

  /** In a cork. */
  private writeWhole(res: HttpResponse, head: string | Buffer, body: Buffer | string | null, length: number): void {
    if (head.length > 0) res.writeStatus(head)
    if (body === null) {
      if (this.closes) res.writeHeader('connection', 'close')
      return endWithLength(res, length)
    }
    this.writeClose(res)
    if (!this.isHead) {
      isLastWrite[0] = this.watched ? Number(this.closes) : 0
      res.end(body, this.closes)
      // To be told to close, uWS wants a length, and can be told of none but 0.
    } else if (this.closes) res.endWithoutBody(0, true)
    else endWithLength(res, body.length)
  }

  /** A body that one cork does not hold. */
  private respondInParts(res: HttpResponse, head: string | Buffer, body: Buffer): void {
    // Some of it may wait for the client.
    this.watch()
    let taken = true
    res.cork(() => {
      if (head.length > 0) res.writeStatus(head)
      // As in writeHead: tryEnd is not told to close.
      if (this.closes) res.writeHeader('connection', 'close')
      taken = this.tryEnd(res, body, body.length)
    })
    if (taken) return
    res.onWritable((offset) => {
      try {
        return this.tryEnd(res, body.subarray(offset), body.length)
      } catch (error) {
        this.owner!.crash(error)
        return true
      }
    })
  }

  /** False: uWS has not taken all of it. */
  private tryEnd(res: HttpResponse, chunk: Buffer, length: number): boolean {
    const [ok, done] = res.tryEnd(chunk, length)
    if (done) this.completeUntold()
    return ok
  }

  start(line: StatusLine, lines: HeadLines, own: string, length: number | null, listener: DrainListener): void {
    const { res } = this
    if (res === null) return
    this.head = headOf(line, lines, own)
    this.length = length ?? -1
    this.listener = listener
    res.onWritable((offset) => {
      try {
        return this.drain(offset)
      } catch (error) {
        this.owner!.crash(error)
        return true
      }
    })
  }

  /**
   * uWS writes Transfer-Encoding with the first chunk, so a chunked response's head leaves without it, unfinished. Does
   * nothing with uWS 20.69, which takes a tryEnd of nothing for the end of the response, and after whose beginWrite()
   * the first chunk begins with a line too many: there the head leaves with the first byte.
   */
  flush(): void {
    const { res } = this
    if (res === null || this.head === null || res.beginWrite !== undefined) return
    this.prepareHead(res)
    res.cork(() => {
      this.writeHead(res)
      // A response of no bytes is complete with its head.
      if (this.length >= 0 && res.tryEnd('', this.length)[1]) this.completeUntold()
    })
  }

  write(chunk: Buffer): boolean {
    const { res } = this
    if (res === null) return true
    if (this.length >= 0) return this.writeOfLength(res, chunk)
    let ok = true
    for (let from = 0; from < chunk.length; ) {
      const most = this.head === null ? CORK_CHUNK_BYTES : MOST_WHOLE_BYTES
      const part = chunk.subarray(from, from + most)
      this.prepareHead(res)
      res.cork(() => {
        this.writeHead(res)
        ok = res.write(part)
      })
      from += part.length
    }
    if (!ok) this.waiting = true
    return ok
  }

  private writeOfLength(res: HttpResponse, chunk: Buffer): boolean {
    this.prepareHead(res)
    res.cork(() => {
      this.writeHead(res)
      const offset = res.getWriteOffset()
      const [ok, done] = res.tryEnd(chunk, this.length)
      if (done) this.completeUntold()
      else if (!ok) {
        // The chunk is its owner's again when this returns: what uWS did not take is copied.
        this.pendingOffset = res.getWriteOffset()
        this.pending = Buffer.from(chunk.subarray(this.pendingOffset - offset))
        this.waiting = true
      }
    })
    return this.pending === null
  }

  /** The client can take more. False: some of what waits here is still left. */
  private drain(offset: number): boolean {
    const { res, pending } = this
    if (res === null || !this.waiting) return true
    if (pending !== null) {
      const [ok, done] = res.tryEnd(pending.subarray(offset - this.pendingOffset), this.length)
      if (done) this.completeUntold()
      else if (!ok) return false
      this.pending = null
    }
    this.waiting = false
    this.listener!.onDrain()
    return true
  }

  /** With a declared length uWS has ended the response with its last byte. */
  end(): void {
    const { res } = this
    if (res === null || this.length > 0) return
    this.prepareHead(res)
    res.cork(() => {
      this.writeHead(res)
      if (this.length === 0) endWithLength(res, 0)
      else res.end()
    })
    this.completeUntold()
  }

  interim(): void {}

  upgrade(): Tunnel | null {
    return null
  }

  /** Returns what is still to be written of the head. */
  private beginHead(res: HttpResponse, head: string | Buffer): string | Buffer {
    this.begin()
    if (head.length <= MOST_HEAD_BYTES) return head
    writeLongHead(res, head as string)
    return ''
  }

  private prepareHead(res: HttpResponse): void {
    if (this.head !== null) this.head = this.beginHead(res, this.head)
  }

  /** In the cork of the first write. */
  private writeHead(res: HttpResponse): void {
    const { head } = this
    if (head === null) return
    this.head = null
    if (head.length > 0) res.writeStatus(head)
    // Here uWS cannot be told to close. It does by itself where it saw the client ask for that (writeClose); else the
    // gate does.
    if (this.closes) res.writeHeader('connection', 'close')
  }
}

/**
 * Only the head, with the length of a body that is not sent; -1 for none. uWS's own endWithoutBody(length) waits for
 * that body for ever: the connection's next request is cut off.
 */
function endWithLength(res: HttpResponse, length: number): void {
  if (length >= 0) res.writeHeader('content-length', String(length))
  res.endWithoutBody()
}
