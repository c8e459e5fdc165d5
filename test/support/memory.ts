// Resident memory of a gateway's workers while something goes on, read from outside.
import { readFileSync } from 'node:fs'
import type { Gateway } from './gateway.js'

const SAMPLE_MS = 50

export function residentBytes(pid: number): number {
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))
  return Number(line![1]) * 1024
}

/** The most that any worker grew by while `run` ran. */
export async function residentGrowth(gateway: Gateway, run: () => Promise<void>): Promise<number> {
  const pids = new Set((await gateway.status()).workers.map((worker) => worker.pid))
  const before = new Map([...pids].map((pid) => [pid, residentBytes(pid)]))
  let growth = 0
  const sample = () => {
    for (const [pid, bytes] of before) growth = Math.max(growth, residentBytes(pid) - bytes)
  }
  const timer = setInterval(sample, SAMPLE_MS)
  try {
    await run()
    sample()
  } finally {
    clearInterval(timer)
  }
  return growth
}
