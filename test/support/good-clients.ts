// Runs good-clients.mjs beside whatever else a test does, and tells what its clients saw.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'

const GOOD_CLIENTS = fileURLToPath(new URL('good-clients.mjs', import.meta.url))

/** So many clients that ask once in `paceMs`. Every answer must be 200. Sorted latencies, ms. */
export async function askWell(port: number, clients: number, paceMs: number, forMs: number): Promise<number[]> {
  const child = fork(GOOD_CLIENTS, [port, clients, paceMs, forMs].map(String))
  const { latencies, why } = await new Promise<{ latencies?: number[]; why?: string }>((resolve) =>
    child.once('message', resolve).once('disconnect', () => resolve({ why: 'the good clients have ended' })),
  )
  if (latencies === undefined) throw new Error(why)
  return latencies.sort((a, b) => a - b)
}

export const quantile = (sorted: readonly number[], q: number): number => sorted[Math.floor(q * sorted.length)]!

export const told = (sorted: readonly number[]): string =>
  [0.5, 0.99, 0.999].map((q) => `p${q * 100} ${quantile(sorted, q).toFixed(1)} ms`).join(', ')
