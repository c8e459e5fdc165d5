// wrk, with its histogram taken whole (wrk.lua). It only knows full seconds, so it is told a longer run and stopped
// with SIGINT, which it takes as the end of the measurement and answers with its summary; it looks for that every 100
// ms.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { histogram, record } from '../histogram.js'
import { output, start } from '../processes.js'
import type { Load, LoadGenerator, LoadResult } from './load.js'

const SCRIPT = fileURLToPath(new URL('../../../bench/load/wrk.lua', import.meta.url))

export async function wrk(): Promise<LoadGenerator | null> {
  const version = /wrk (\S+)/.exec((await output('wrk', ['-v'])) ?? '')
  return version === null ? null : { name: `wrk ${version[1]}`, run }
}

async function run(load: Load): Promise<LoadResult> {
  const headers = load.keepAlive ? load.headers : { ...load.headers, Connection: 'close' }
  const seconds = Math.ceil(load.durationMs / 1000) + 2
  const child = start(
    'wrk',
    [
      ['-t', String(load.threads), '-c', String(load.connections), '-d', `${seconds}s`, '-s', SCRIPT],
      [
        `http://127.0.0.1:${load.port}${load.path}`,
        '--',
        load.method,
        load.bodyFile ?? '-',
        ...Object.entries(headers).flat(),
      ],
    ].flat(),
    load.cpus,
  )
  let text = ''
  child.stdout!.on('data', (chunk) => (text += chunk))
  child.stderr!.on('data', (chunk) => (text += chunk))
  const closed = once(child, 'close')
  await untilItCatchesSigint(child)
  const timer = setTimeout(() => child.kill('SIGINT'), load.durationMs - 30)
  await closed
  clearTimeout(timer)
  const line = text.split('\n').find((one) => one.startsWith('@tidegate '))
  if (line === undefined) throw new Error(`wrk did not finish: ${text.slice(0, 500)}`)
  const [, requests, durationUs, errors, status, values] = line.split(' ')
  const latencyUs = histogram()
  for (const pair of values!.split(';')) {
    const [value, count] = pair.split(',')
    if (count !== undefined) record(latencyUs, Number(value), Number(count))
  }
  return {
    requests: Number(requests),
    durationMs: Number(durationUs) / 1000,
    errors: Number(errors),
    non2xx: Number(status),
    latencyUs,
  }
}

/**
 * Before its handler is there the signal would end wrk without a word; on a busy machine that takes longer than a short
 * round.
 */
async function untilItCatchesSigint(child: ChildProcess): Promise<void> {
  while (child.exitCode === null && child.signalCode === null) {
    try {
      const caught = /SigCgt:\s*([0-9a-f]+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'latin1'))?.[1]
      if (caught === undefined || BigInt(`0x${caught}`) & 2n) return
    } catch {
      return // no /proc on this system
    }
    await wait(5)
  }
}
