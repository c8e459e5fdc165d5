// `--slow TARGET=10%`: a process beside the target, on its core and counted as part of it, that spends so much of what the target spends.
// It shows that the harness would notice. Works for every target because it needs nothing from it.
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { cpuOf, spentUs } from './cpu.js'
import { start } from './processes.js'

const LOOK_EVERY_MS = 4

export function slowDown(pid: number, fraction: number, cpus: string | null): ChildProcess {
  return start(process.execPath, [fileURLToPath(import.meta.url), String(pid), String(fraction)], cpus)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [pid, fraction] = process.argv.slice(2).map(Number) as [number, number]
  const before = cpuOf([pid])
  const own = process.cpuUsage()
  setInterval(() => {
    const owedUs = spentUs(before, cpuOf([pid])) * fraction
    for (;;) {
      const { user, system } = process.cpuUsage(own)
      if (user + system >= owedUs) break
    }
  }, LOOK_EVERY_MS)
}
