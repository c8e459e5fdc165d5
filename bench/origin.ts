// The service behind every target: uWebSockets.js answering 20 bytes, as the reference's origin did, or as many as the
// path asks for. A process of its own. It counts what reached it: what a load generator still had in flight when it
// stopped is in here as well.
import type { HttpResponse } from 'uWebSockets.js'
import { uWS } from '../src/downstream/uws/load.js'

const TWENTY_BYTES = 'twenty bytes of body'

const bodies = new Map<string, Buffer>()
let answered = 0

function body(bytes: string): Buffer {
  let found = bodies.get(bytes)
  if (found !== undefined) return found
  found = Buffer.alloc(Number(bytes), 'tidegate')
  bodies.set(bytes, found)
  return found
}

function drop(): void {}

const app = uWS
  .App()
  .get('/bytes/:count', (res, req) => {
    answered++
    const payload = body(req.getParameter(0) ?? '0')
    if (payload.length <= 65_536) res.end(payload)
    else stream(res, payload)
  })
  .post('/*', (res) => {
    res.onAborted(drop)
    res.onData((_chunk, isLast) => {
      if (!isLast) return
      answered++
      res.cork(() => res.end(TWENTY_BYTES))
    })
  })
  .any('/*', (res) => {
    answered++
    res.end(TWENTY_BYTES)
  })

function stream(res: HttpResponse, payload: Buffer): void {
  res.onAborted(drop)
  const [, done] = res.tryEnd(payload, payload.length)
  if (done) return
  res.onWritable((offset) => res.tryEnd(payload.subarray(offset), payload.length)[1])
}

app.listen('127.0.0.1', Number(process.argv[2] ?? 0), (socket) => {
  if (!socket) throw new Error('the origin cannot listen')
  process.send?.({ ready: true })
})
process.on('message', () => process.send?.({ answered }))
// Ctrl-C in a terminal reaches the whole process group: the harness ends the origin, after what still needs it.
process.on('SIGINT', drop)
process.on('disconnect', () => process.exit())
