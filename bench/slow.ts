// `--slow TARGET=10%`: a process beside the target, on its core and counted as part of it, that spends so much of what
// the target spends. It shows that the harness would notice. Works for every target because it needs nothing from it.
import type { ChildProcess } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { cpuOf, spentUs } from './cpu.js'
import { start } from './processes.js'

/** Looking costs too, and counts as what is spent: seldom enough to stay below what is owed. */
const LOOK_EVERY_MS = 25

export function slowDown(pid: number, fraction: number, cpus: string | null): ChildProcess {
  return start(process.execPath, [fileURLToPath(import.meta.url), String(pid), String(fraction)], cpus)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [pid, fraction] = process.argv.slice(2).map(Number) as [number, number]
  let seen = cpuOf([pid])
  let own = process.cpuUsage()
  setInterval(() => {
    const now = cpuOf([pid])
    const owedUs = spentUs(seen, now) * fraction
    seen = now
    // Looks at an idle target are spent for nothing; they are not set against what comes later.
    for (;;) {
      const { user, system } = process.cpuUsage(own)
      if (user + system >= owedUs) break
    }
    own = process.cpuUsage()
  }, LOOK_EVERY_MS)
}
