// A Unix socket whose backlog is full: its server is a process that is stopped.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

/** Answers each connection once. */
const SERVER = `
  const server = require('node:net').createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.end('HTTP/1.1 200 OK\\r\\ncontent-length: 2\\r\\nconnection: close\\r\\n\\r\\nok'))
  })
  server.listen({ path: process.argv[1], backlog: 1 }, () => console.log('listening'))
`

export interface FullBacklog {
  /** The server accepts again, and answers each connection 200 once. */
  goOn(): void
  close(): void
}

export async function fillBacklog(path: string): Promise<FullBacklog> {
  const server = spawn(process.execPath, ['-e', SERVER, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(server.stdout, 'data')
  server.kill('SIGSTOP')
  const waiting: Socket[] = []
  for (let isFull = false; !isFull; ) {
    const socket = connect(path)
    isFull = await new Promise<boolean>((resolve, reject) => {
      socket.once('connect', () => resolve(false))
      socket.once('error', (error: NodeJS.ErrnoException) => (error.code === 'EAGAIN' ? resolve(true) : reject(error)))
    })
    waiting.push(socket.on('error', () => {}))
  }
  return {
    goOn: () => void server.kill('SIGCONT'),
    close() {
      for (const socket of waiting) socket.destroy()
      server.kill('SIGKILL')
    },
  }
}
