// The longest response of each kind that the gateway takes from an upstream, written so that careless code pays most
// for it, and an upstream that sends them. Bytes are written as latin1: a character is a byte.
import { once } from 'node:events'
import { createServer } from 'node:net'
import { fields, LONG, lines, long } from './worst-inputs.mjs'

/** Another one in each response: no two are the same. */
const NONCE = '0000000000'
const head = (text) => `HTTP/1.1 200 OK\r\nContent-Length: 2\r\nNonce: ${NONCE}\r\n${text}\r\nhi`
const distinct = (count, line) => lines(count, (i) => line(i.toString(36)))
/** A response may have as many fields as fit. */
export function worstResponses() {
  const some = long('ab,', LONG / 2)
  return Object.entries({
    'many fields': head(distinct(2000, (i) => `${i}:\r\n`)),
    'many fields of one name': head(long('a:\r\n')),
    'many Set-Cookie fields': head(long('set-cookie:a\r\n')),
    'many fields and Connection': head(fields('Connection', some) + distinct(1000, (i) => `${i}:\r\n`)),
    'many Connection fields': head(long('connection:a\r\n')),
    'Connection of blanks': head(fields('Connection', `a${long(' ')}a`)),
    'Connection of commas': head(fields('Connection', `a${long(',')}a`)),
    'one long field': head(fields('x-a', long('a'))),
    'blanks inside': head(fields('x-a', `a${long(' ')}a`)),
    'blanks around': head(`x-a:${long(' ')}\r\n`),
    'bytes above ASCII': head(fields('x-a', long('\xe9'))),
    'a long name': head(fields(long('a'), 'a')),
    'a long reason': `HTTP/1.1 200 ${long('a')}\r\nContent-Length: 2\r\n\r\nhi`,
    'Keep-Alive': head(fields('Keep-Alive', long('timeout='))),
    'chunks of one byte': `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${long('1\r\na\r\n')}0\r\n\r\n`,
    'a chunk extension': `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a="${'a'.repeat(1000)}"\r\na\r\n0\r\n\r\n`,
    'chunk extensions': `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1${long(';a', 1000)}\r\na\r\n0\r\n\r\n`,
    trailers: `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n${distinct(2000, (i) => `${i}:\r\n`)}\r\n`,
    'interim responses': `${long('HTTP/1.1 103 Early Hints\r\na:\r\n\r\n')}${head('')}`,
  }).map(([name, text]) => ({ name, bytes: Buffer.from(text, 'latin1') }))
}

/** Answers `GET /rN` with the worst response of that number, all else with a short one. */
export async function startWorstOrigin() {
  const responses = worstResponses().map(({ bytes }) => ({ bytes, nonceAt: bytes.indexOf(NONCE) }))
  const usual = Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi')
  let sent = 0
  const answerTo = (text) => {
    const number = /^GET \/r(\d+) /.exec(text)?.[1]
    if (number === undefined) return usual
    const { bytes, nonceAt } = responses[number]
    if (nonceAt >= 0) bytes.write(String(++sent).padStart(NONCE.length, '0'), nonceAt)
    return Buffer.from(bytes)
  }
  const sockets = new Set()
  const server = createServer({ noDelay: true }, (socket) => {
    let text = ''
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    socket.setEncoding('latin1')
    socket.on('data', (part) => {
      text += part
      for (;;) {
        const headEnd = text.indexOf('\r\n\r\n') + 4
        if (headEnd < 4) return
        const isChunked = /\r\ntransfer-encoding: chunked\r\n/.test(text.slice(0, headEnd))
        const end = isChunked ? text.indexOf('0\r\n\r\n', headEnd) + 5 : headEnd
        if (end < headEnd) return
        socket.write(answerTo(text))
        text = text.slice(end)
      }
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    async close() {
      for (const socket of sockets) socket.destroy()
      server.close()
      await once(server, 'close')
    },
  }
}
