// Slow clients, in a process of their own so that they do not hold up whoever times others: slow-clients.mjs PORT COUNT
// KIND. A connection that the gateway ends is replaced at once. Tells how many are open and how many were ended.
import { connect } from 'node:net'
import { constants, setPriority } from 'node:os'

// Real ones would cost the gateway's machine nothing but what they send: here they get what is left of the cores.
setPriority(constants.priority.PRIORITY_LOW)

const HEAD = 'POST /slow HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 10000000\r\n\r\n'
const kinds = {
  /**
   * Clients that never finish the head: some stop in the request line, some behind it, some say nothing. Then a byte
   * now and then.
   */
  heads: {
    beginnings: [
      'GET /slow HT',
      'GET /slow HTTP/1.1\r\nHost: demo.test\r\nX-Slow: ',
      'POST /slow HTTP/1.0\r\nX-Slow: ',
      '',
    ],
    piece: 'x',
    everyMs: 3000,
    slices: 30,
    connecting: 200,
  },
  /** Clients that upload at 300 bytes a second. Every fourth begins with more than the gateway reads ahead. */
  uploads: {
    beginnings: [HEAD + 'x'.repeat(70_000), HEAD, HEAD, HEAD],
    piece: 'x'.repeat(300),
    everyMs: 1000,
    slices: 20,
    connecting: 100,
  },
}

const port = Number(process.argv[2])
const count = Number(process.argv[3])
const { beginnings, piece, everyMs, slices, connecting: mostConnecting } = kinds[process.argv[4]]

const open = new Set()
let connecting = 0
let ended = 0
let made = 0

function dial() {
  connecting++
  // Enough addresses for the ports that stay taken for a minute behind those that were ended.
  const localAddress = `127.0.1.${1 + (made % 50)}`
  const beginning = beginnings[made++ % beginnings.length]
  const socket = connect({ port, host: '127.0.0.1', localAddress })
  let pending = true
  const settle = () => {
    if (pending) connecting--
    pending = false
  }
  socket.on('connect', () => {
    settle()
    open.add(socket)
    if (beginning !== '') socket.write(beginning)
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    settle()
    if (open.delete(socket)) ended++
  })
  socket.resume()
}

setInterval(() => {
  while (open.size + connecting < count && connecting < mostConnecting) dial()
}, 20)
// A slice of them at a time: the bytes are to come evenly.
let turn = 0
setInterval(() => {
  let i = 0
  for (const socket of open) if (i++ % slices === turn % slices) socket.write(piece)
  turn++
}, everyMs / slices)
setInterval(() => process.send({ open: open.size, ended }), 100)
process.on('disconnect', () => process.exit())
