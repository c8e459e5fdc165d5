// Slow clients beside those of a test: see slow-clients.mjs, which runs them.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Lines } from './lines.js'

const CLIENTS = fileURLToPath(new URL('./slow-clients.mjs', import.meta.url))
/** Ten thousand of them take a few seconds to connect. */
const OPEN_MS = 30_000

export interface SlowClients {
  /** As they said last. */
  readonly now: { readonly open: number; readonly ended: number }
  kill(): void
}

/** Resolves once nearly all of them are connected. */
export async function startSlowClients(kind: 'heads' | 'uploads', port: number, count: number): Promise<SlowClients> {
  const child = fork(CLIENTS, [String(port), String(count), kind])
  const told = new Lines<SlowClients['now']>('count')
  child.on('message', (message) => told.push(message as SlowClients['now']))
  try {
    await told.find(({ open }) => open > count * 0.9, `${count} slow ${kind}`, OPEN_MS)
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  }
  return {
    get now() {
      return told.all.at(-1) as SlowClients['now']
    },
    kill: () => void child.kill('SIGKILL'),
  }
}
