// kill -9 of one instance of a service after the other under load, as a careless deployment does it. Nothing but the
// endpoints is configured.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, expect, test } from 'vitest'
import { startGateway } from '../support/gateway.js'
import { steadyLoad } from '../support/steady-load.js'

const PROGRAM = fileURLToPath(new URL('../support/instance.mjs', import.meta.url))
const INSTANCES = 3
const TAKES_MS = 10
const PER_SECOND = 300
const ROUNDS = 3
const DOWN_MS = 500
const UP_MS = 1500

class Instance {
  port = 0
  private child!: ChildProcess

  async start(): Promise<void> {
    this.child = spawn(process.execPath, [PROGRAM, String(this.port), String(TAKES_MS)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = (await once(this.child.stdout!, 'data')) as [Buffer]
    this.port = Number(line.toString())
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL')
    await once(this.child, 'exit')
  }
}

const instances = Array.from({ length: INSTANCES }, () => new Instance())
afterAll(() => Promise.all(instances.map((instance) => instance.kill())))

const after = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

test('fails no GET, and a POST only where its instance may have acted on it', async () => {
  await Promise.all(instances.map((instance) => instance.start()))
  const gateway = await startGateway({
    workers: 2,
    config: {
      services: { orders: { endpoints: instances.map(({ port }) => `http://127.0.0.1:${port}`) } },
      routes: [{ match: { path: '/' }, service: 'orders', auth: 'none' }],
    },
  })
  const seconds = Math.ceil((ROUNDS * INSTANCES * (DOWN_MS + UP_MS)) / 1000) + 2
  const load = steadyLoad({
    port: gateway.port,
    perSecond: PER_SECOND,
    seconds,
    of: (n) => (n % 3 === 0 ? { method: 'POST', body: 'some=thing' } : {}),
  })
  for (let round = 0; round < ROUNDS; round++) {
    for (const instance of instances) {
      await after(UP_MS)
      await instance.kill()
      await after(DOWN_MS)
      await instance.start()
    }
  }
  const outcomes = await load
  const failed = outcomes.filter(({ status }) => status !== 200)
  expect(failed.filter(({ method }) => method === 'GET')).toEqual([])
  // Of the POSTs those that an instance had in hand when it was killed, at most.
  for (const { rid, method } of failed) {
    const line = await gateway.access.find((one) => one.rid === rid, rid)
    expect(line, method).toMatchObject({ status: 502, reason: 'connection lost' })
  }
  const inHand = (PER_SECOND / 3 / INSTANCES) * (TAKES_MS / 1000)
  expect(failed.length).toBeLessThanOrEqual(ROUNDS * INSTANCES * (inHand + 10))
  await gateway.close()
})
