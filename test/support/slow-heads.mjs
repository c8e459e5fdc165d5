// Clients that never finish the head of their request, in a process of their own so that whoever times others is not held up by them:
// slow-heads.mjs PORT COUNT. Each sends a byte now and then, and is replaced as soon as it is ended. Tells how many are open and were ended.
import { connect } from 'node:net'
import { constants, setPriority } from 'node:os'

// They are somewhere else, where they cost whom they ask nothing but what they send: here they get what is left of the cores.
setPriority(constants.priority.PRIORITY_LOW)

const port = Number(process.argv[2])
const count = Number(process.argv[3])
const BYTE_MS = 3000
/** Some stop in the request line, some behind it, some say nothing. */
const BEGINNINGS = [
  'GET /slow HT',
  'GET /slow HTTP/1.1\r\nHost: demo.test\r\nX-Slow: ',
  'POST /slow HTTP/1.0\r\nX-Slow: ',
  '',
]
const CONNECTING = 200

const open = new Set()
let connecting = 0
let ended = 0
let made = 0

function dial() {
  connecting++
  // Enough addresses for the ports that stay taken for a minute behind those that were ended.
  const localAddress = `127.0.1.${1 + (made % 50)}`
  const beginning = BEGINNINGS[made++ % BEGINNINGS.length]
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
  while (open.size + connecting < count && connecting < CONNECTING) dial()
}, 20)
// A slice of them at a time: the bytes are to come evenly.
let turn = 0
setInterval(() => {
  let i = 0
  for (const socket of open) if (i++ % 30 === turn % 30) socket.write('x')
  turn++
}, BYTE_MS / 30)
setInterval(() => process.send({ open: open.size, ended }), 100)
process.on('disconnect', () => process.exit())
