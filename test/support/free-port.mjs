// A port for a program that cannot say which one it was given.
import { createServer } from 'node:net'

/**
 * Below those that the kernel gives to whoever asks for any: a connection of another test could take one of these
 * before the program does.
 */
const FIRST = 15_000
const COUNT = 15_000

/** @returns {Promise<number>} a port of the loopback address on which nobody listens */
export async function freePort() {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * COUNT)
    const server = createServer()
    const isFree = await new Promise((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => server.close(() => resolve(true)))
    })
    if (isFree) return port
  }
}
