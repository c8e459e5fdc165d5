// kill -9 of one worker of two while wrk keeps both busy and others connect anew all the time.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { forwardAll, startGateway } from '../support/gateway.js'
import { startEcho } from '../support/origins.js'
import { Connection } from '../support/raw-client.js'
import { requireProcesses, requireTool } from '../support/requirements.js'
import { eventually } from '../support/waiting.js'

/**
 * Connections of each of two wrk. The second comes when the first has settled: its connections go to whoever has fewer.
 */
const KEPT = 16
const FRESH = 4
const SECONDS = 6

interface LoadReport {
  readonly requests: number
  readonly connectErrors: number
  readonly readErrors: number
  readonly writeErrors: number
  readonly timeouts: number
  readonly notOk: number
}

const sum = (a: LoadReport, b: LoadReport): LoadReport => ({
  requests: a.requests + b.requests,
  connectErrors: a.connectErrors + b.connectErrors,
  readErrors: a.readErrors + b.readErrors,
  writeErrors: a.writeErrors + b.writeErrors,
  timeouts: a.timeouts + b.timeouts,
  notOk: a.notOk + b.notOk,
})

async function wrk(port: number): Promise<LoadReport> {
  const child = spawn('wrk', ['-t1', `-c${KEPT}`, `-d${SECONDS}s`, `http://127.0.0.1:${port}/`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  child.stdout.on('data', (data: Buffer) => {
    text += data.toString()
  })
  const [code] = (await once(child, 'close')) as [number]
  if (code !== 0) throw new Error(`wrk ended with ${code}: ${text}`)
  const errors = /connect (\d+), read (\d+), write (\d+), timeout (\d+)/.exec(text)
  const number = (match: RegExpExecArray | null, at: number) => Number(match?.[at] ?? 0)
  return {
    requests: number(/(\d+) requests in/.exec(text), 1),
    connectErrors: number(errors, 1),
    readErrors: number(errors, 2),
    writeErrors: number(errors, 3),
    timeouts: number(errors, 4),
    notOk: number(/Non-2xx or 3xx responses: (\d+)/.exec(text), 1),
  }
}

test('costs only what the dead one had in flight, and it is back within a second', async (context) => {
  requireTool(context, 'wrk')
  const origin = await startEcho()
  const gateway = await startGateway({
    losesWorkers: true,
    config: forwardAll(origin, { accessLog: false }),
  })
  try {
    requireProcesses(context, gateway)
    const served = () => gateway.metric('tidegate_requests_total{route="/",status="200"}')
    const first = wrk(gateway.port)
    await eventually('a thousand responses', served, (count = 0) => count > 1000)
    const load = Promise.all([first, wrk(gateway.port)]).then(([a, b]) => sum(a, b))
    let over = false
    void load.finally(() => {
      over = true
    })
    const refused: string[] = []
    let cutFresh = 0
    let servedFresh = 0
    /**
     * One connection a request. Connecting must never fail; an answer may be missing where the worker died that had
     * taken the request.
     */
    const fresh = async () => {
      while (!over) {
        const connection = await Connection.open(gateway.port).catch((error: Error) => void refused.push(error.message))
        if (connection === undefined) continue
        await connection.exchange({ headers: { Connection: 'close' } }).then(
          (answer) => {
            expect(answer.status).toBe(200)
            servedFresh++
          },
          () => cutFresh++,
        )
        connection.destroy()
      }
    }
    const others = Array.from({ length: FRESH }, fresh)

    const workers = async () =>
      (await gateway.status()).workers as unknown as [{ pid: number; connections: number }, { connections: number }]
    // Each has kept connections, not only some of those that come anew.
    const fewest = async () => Math.min(...(await workers()).map(({ connections }) => connections))
    await eventually('connections that are kept on each worker', fewest, (count) => count > FRESH)
    const [dying] = await workers()
    const killedAt = Date.now()
    process.kill(dying.pid, 'SIGKILL')
    const [, back] = await gateway.log.take(
      2,
      (line) => line.msg === 'worker listens' && line.slot === 0,
      'its successor',
    )
    const report = await load
    await Promise.all(others)

    expect(back!.time - killedAt).toBeLessThan(1000)
    expect(refused).toEqual([])
    expect(cutFresh).toBeLessThanOrEqual(FRESH)
    expect(servedFresh).toBeGreaterThan(100)
    expect(report).toMatchObject({ connectErrors: 0, writeErrors: 0, timeouts: 0, notOk: 0 })
    // Each of its connections breaks once; those of the other one do not.
    expect(report.readErrors).toBeLessThanOrEqual(dying.connections)
    expect(report.requests).toBeGreaterThan(2000)
    expect((await gateway.status()).workers[0]).toMatchObject({ state: 'listening', restarts: 1 })
    expect(await gateway.metric('tidegate_worker_restarts_total{worker="0"}')).toBe(1)
  } finally {
    await gateway.close()
    await origin.close()
  }
})
