// Clients that upload at 300 bytes a second, in a process of their own so that whoever times others is not held up by them:
// slow-uploads.mjs PORT COUNT. Every fourth begins with more than the gateway reads ahead. One that is ended comes again. Tells how many are
// open and were ended.
import { connect } from 'node:net'
import { constants, setPriority } from 'node:os'

// They are somewhere else, where they cost whom they ask nothing but what they send: here they get what is left of the cores.
setPriority(constants.priority.PRIORITY_LOW)

const port = Number(process.argv[2])
const count = Number(process.argv[3])
const PIECE = 'x'.repeat(300)
const HEAD = 'POST /slow HTTP/1.1\r\nHost: demo.test\r\nContent-Length: 10000000\r\n\r\n'
const READ_AHEAD = 'x'.repeat(70_000)
const CONNECTING = 100
/** A slice of them at a time: the bytes are to come evenly. */
const SLICES = 20

const open = new Set()
let connecting = 0
let ended = 0
let made = 0

function dial() {
  connecting++
  const socket = connect({ port, host: '127.0.0.1', localAddress: `127.0.1.${1 + (made % 50)}` })
  const head = made++ % 4 === 0 ? HEAD + READ_AHEAD : HEAD
  let pending = true
  const settle = () => {
    if (pending) connecting--
    pending = false
  }
  socket.on('connect', () => {
    settle()
    open.add(socket)
    socket.write(head)
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
let turn = 0
setInterval(() => {
  let i = 0
  for (const socket of open) if (i++ % SLICES === turn % SLICES) socket.write(PIECE)
  turn++
}, 1000 / SLICES)
setInterval(() => process.send({ open: open.size, ended }), 100)
process.on('disconnect', () => process.exit())
