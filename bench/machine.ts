// Which machine the figures are from, and how its cores are shared out: the target first, the load and the origin on
// what is left.
import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os'
import { cpuSource } from './cpu.js'
import { output } from './processes.js'

export interface Cores {
  /** For the target and for the load with its origin; null where nothing can be pinned. */
  readonly target: string | null
  readonly load: string | null
  readonly loadCount: number
  readonly all: number
}

export async function cores(): Promise<Cores> {
  const all = availableParallelism()
  const allowed = allowedCpus()
  const taskset = (await output('taskset', ['--version'])) !== null
  if (!taskset || allowed.length < 2) return { target: null, load: null, loadCount: Math.max(1, all - 1), all }
  const [target, ...load] = allowed
  return { target: String(target), load: load.join(','), loadCount: load.length, all }
}

/** `Cpus_allowed_list: 0-1,4` of this process. */
function allowedCpus(): number[] {
  try {
    const list = /Cpus_allowed_list:\s*(\S+)/.exec(readFileSync('/proc/self/status', 'latin1'))?.[1] ?? ''
    return list.split(',').flatMap((range) => {
      const [first, last = first] = range.split('-').map(Number)
      return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i)
    })
  } catch {
    return []
  }
}

export interface Machine {
  readonly cpu: string
  readonly cores: number
  readonly memoryGiB: number
  readonly kernel: string
  readonly node: string
  readonly pinning: string
  readonly cpuSource: string
  readonly loadAverageAtStart: number
}

export function machine(shared: Cores): Machine {
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: shared.all,
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    kernel: `${type()} ${release()}`,
    node: process.versions.node,
    pinning: shared.target === null ? 'none' : `target on core ${shared.target}, load and origin on ${shared.load}`,
    cpuSource,
    loadAverageAtStart: Math.round(loadavg()[0]! * 100) / 100,
  }
}
