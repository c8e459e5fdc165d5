// A client that sends the worst input of every kind over 200 connections, 5 MB a second, beside 64 clients that ask as
// they should: no worker is killed as hung, and all of the latter are served. A second client sends as many bytes that
// nobody reads. What a byte of either costs the workers in CPU time is held. Latencies are only told: on a machine that
// runs the clients and the upstream as well, they say as much of the machine.
import { fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { startGateway } from '../support/gateway.js'
import { askWell, told } from '../support/good-clients.js'
import { requireProcesses } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'
import { configFor } from '../support/worst-inputs.mjs'
import { startWorstOrigin } from '../support/worst-responses.mjs'

const BAD = 200
const BAD_PER_SECOND = 320
const GOOD = 64
const PACE_MS = 100
const ROUNDS = 2
const WORST_MS = Number(process.env.TIDEGATE_TEST_WORST_MS ?? 16_000) / ROUNDS
const OTHERS_MS = 5_000
/**
 * A byte of the worst input may cost so many times what one costs that is only passed on. It is looked at, which costs
 * some three times as much here; work that grows with the square of 16 KiB costs hundreds of times as much.
 */
const MOST_TIMES = 10

const WORST_CLIENT = fileURLToPath(new URL('../support/worst-client.mjs', import.meta.url))

type Kind = 'alone' | 'harmless' | 'worst'

test(`${BAD} connections of worst inputs leave ${GOOD} good clients served`, async (context) => {
  const origin = await startWorstOrigin()
  const gateway = await startGateway({
    workers: 2,
    env: { TIDEGATE_ACCESS_LOG: '/dev/null' },
    config: configFor(origin.url),
  })
  const latencies: Record<Kind, number[]> = { alone: [], harmless: [], worst: [] }
  const cpuMs: Record<Kind, number> = { alone: 0, harmless: 0, worst: 0 }
  const sent = { harmless: 0, worst: 0 }

  try {
    requireProcesses(context, gateway)
    const pids = (await gateway.status()).workers.map(({ pid }) => pid)
    const loopsMs = (): number => {
      const each = pids.map((pid) => readFileSync(`/proc/${pid}/task/${pid}/schedstat`, 'utf8').split(' ')[0])
      return each.reduce((sum, ns) => sum + Number(ns) / 1e6, 0)
    }
    /** While the good clients ask. */
    const timed = async (kind: Kind, forMs: number): Promise<void> => {
      const before = loopsMs()
      latencies[kind].push(...(await askWell(gateway.port, GOOD, PACE_MS, forMs)))
      cpuMs[kind] += loopsMs() - before
    }
    const beside = async (kind: 'harmless' | 'worst', forMs: number): Promise<void> => {
      const client = fork(WORST_CLIENT, [...[gateway.port, BAD, BAD_PER_SECOND].map(String), kind])
      let last = { answered: 0, bytes: 0 }
      client.on('message', (message) => {
        last = message as typeof last
      })
      try {
        // Each connection has had its turn.
        await eventually(
          'a turn of each connection',
          () => last.answered,
          (answered) => answered > BAD,
          20_000,
        )
        const before = last.bytes
        await timed(kind, forMs)
        sent[kind] += last.bytes - before
      } finally {
        client.kill('SIGKILL')
      }
    }
    for (let round = 0; round < ROUNDS; round++) {
      await timed('alone', OTHERS_MS)
      await beside('harmless', OTHERS_MS)
      await beside('worst', WORST_MS)
    }
    for (const [kind, all] of Object.entries(latencies)) console.log(`${kind}: ${told(all.sort((a, b) => a - b))}`)
    // Without what the good clients cost.
    const perMegabyte = (kind: 'harmless' | 'worst', forMs: number): number =>
      (cpuMs[kind] - (cpuMs.alone * forMs) / OTHERS_MS) / (sent[kind] / 1e6)
    const harmless = perMegabyte('harmless', OTHERS_MS)
    const worst = perMegabyte('worst', WORST_MS)
    console.log(
      `${(sent.worst / 1e6).toFixed(0)} MB of the worst, ${worst.toFixed(1)} ms of CPU time each; ` +
        `${(sent.harmless / 1e6).toFixed(0)} MB that nobody reads, ${harmless.toFixed(1)} ms each`,
    )
    expect((await gateway.status()).workers.map(({ restarts }) => restarts)).toEqual([0, 0])
    expect(worst / harmless).toBeLessThan(MOST_TIMES)
  } finally {
    await gateway.close()
    await origin.close()
  }
})
