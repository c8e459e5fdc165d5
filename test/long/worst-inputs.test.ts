// A client that sends the worst input of every kind, over 200 connections, and 64 clients that ask as they should: no worker is held to be hung, and
// the latter are served. They are told alone, beside that client, and beside one that sends as many bytes that ask nothing of anybody: on a machine
// where the clients and the upstream run as well, some of the difference is theirs.
import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { startGateway } from '../support/gateway.js'
import { configFor } from '../support/worst-inputs.mjs'
import { startWorstOrigin } from '../support/worst-responses.mjs'

const BAD = 200
const BAD_PER_SECOND = Number(process.env.TIDEGATE_TEST_WORST_RATE ?? 300)
const GOOD = 64
const PACE_MS = 100
const ROUNDS = 3
/** Beside the client that does its worst; the others have a quarter of it. */
const WORST_MS = Number(process.env.TIDEGATE_TEST_WORST_MS ?? 24_000) / ROUNDS

const WORST_CLIENT = fileURLToPath(new URL('../support/worst-client.mjs', import.meta.url))
const GOOD_CLIENTS = fileURLToPath(new URL('../support/good-clients.mjs', import.meta.url))

/** Every answer must be 200. Latencies in ms. */
async function ask(port: number, forMs: number): Promise<number[]> {
  const clients = fork(GOOD_CLIENTS, [port, GOOD, PACE_MS, forMs].map(String))
  const { latencies, why } = await new Promise<{ latencies?: number[]; why?: string }>((resolve) =>
    clients.once('message', resolve).once('disconnect', () => resolve({ why: 'the good clients have ended' })),
  )
  if (latencies === undefined) throw new Error(why)
  return latencies
}

const quantile = (sorted: readonly number[], q: number): number => sorted[Math.floor(q * sorted.length)]!

test(`${BAD} connections of worst inputs leave ${GOOD} good clients served`, async () => {
  const origin = await startWorstOrigin()
  const gateway = await startGateway({
    workers: 2,
    env: { TIDEGATE_ACCESS_LOG: '/dev/null' },
    config: configFor(origin.url),
  })
  const latencies = { alone: [] as number[], harmless: [] as number[], worst: [] as number[] }
  const sent = { harmless: 0, worst: 0 }
  let longestDelayMs = 0

  const beside = async (kind: 'harmless' | 'worst', forMs: number): Promise<void> => {
    const client = fork(WORST_CLIENT, [...[gateway.port, BAD, BAD_PER_SECOND].map(String), kind])
    let last = { answered: 0, bytes: 0 }
    client.on('message', (message) => {
      last = message as typeof last
    })
    const watch = setInterval(async () => {
      for (const worker of [0, 1]) {
        const seconds = await gateway.metric(`tidegate_worker_event_loop_delay_max_seconds{worker="${worker}"}`)
        if (kind === 'worst') longestDelayMs = Math.max(longestDelayMs, (seconds ?? 0) * 1000)
      }
    }, 500)
    try {
      await expect.poll(() => last.answered, { timeout: 10_000 }).toBeGreaterThan(BAD)
      latencies[kind].push(...(await ask(gateway.port, forMs)))
    } finally {
      clearInterval(watch)
      client.kill('SIGKILL')
    }
    sent[kind] += last.bytes
  }

  try {
    // Compilers and caches have seen all of it by then.
    await beside('worst', 2_000)
    latencies.worst.length = sent.worst = longestDelayMs = 0
    for (let round = 0; round < ROUNDS; round++) {
      latencies.alone.push(...(await ask(gateway.port, WORST_MS / 4)))
      await beside('harmless', WORST_MS / 4)
      await beside('worst', WORST_MS)
    }
    const told = Object.entries(latencies).map(([kind, all]) => {
      all.sort((a, b) => a - b)
      return `${kind}: ${[0.5, 0.99, 0.999].map((q) => `p${q * 100} ${quantile(all, q).toFixed(1)} ms`).join(', ')}`
    })
    console.log(told.join('\n'))
    console.log(
      `${Object.entries(sent)
        .map(([kind, bytes]) => `${(bytes / 1e6).toFixed(0)} MB ${kind}`)
        .join(', ')}; longest delay of an event loop ${longestDelayMs.toFixed(0)} ms`,
    )
    expect((await gateway.status()).workers.map(({ restarts }) => restarts)).toEqual([0, 0])
  } finally {
    await gateway.close()
    await origin.close()
  }
})
