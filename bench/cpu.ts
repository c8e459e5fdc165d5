// CPU time from /proc. Nanoseconds where the kernel keeps them per thread (schedstat); clock ticks of 10 ms (stat)
// otherwise.
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { processTree } from './processes.js'

export const cpuSource: 'schedstat' | 'stat' | 'none' = existsSync('/proc/self/schedstat')
  ? 'schedstat'
  : existsSync('/proc/self/stat')
    ? 'stat'
    : 'none'

const TICK_US = 10_000 // USER_HZ is 100 on every Linux Node runs on

/** User and system time of each process in the trees, in µs. */
export type CpuSnapshot = ReadonlyMap<string, number>

export function cpuOf(pids: readonly number[]): CpuSnapshot {
  const times = new Map<string, number>()
  for (const root of pids) {
    for (const pid of processTree(root)) {
      try {
        if (cpuSource === 'schedstat') {
          for (const thread of readdirSync(`/proc/${pid}/task`)) {
            const nanoseconds = readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0]
            times.set(`${pid}/${thread}`, Number(nanoseconds) / 1000)
          }
        } else if (cpuSource === 'stat') {
          const [user, system] = ticks(pid)
          times.set(String(pid), (user! + system!) * TICK_US)
        }
      } catch {} // ended between the two reads
    }
  }
  return times
}

/** What the trees spent between two snapshots. A thread that ended in between is not counted: targets keep theirs. */
export function spentUs(before: CpuSnapshot, after: CpuSnapshot): number {
  let us = 0
  for (const [key, time] of after) us += time - (before.get(key) ?? 0)
  return us
}

/** CPU of this process's children that have ended: what a load generator used, known once it is gone. */
export function endedChildrenUs(): number {
  if (cpuSource === 'none') return 0
  const [, , user, system] = ticks('self')
  return (user! + system!) * TICK_US
}

/** utime, stime, cutime, cstime: fields 14 to 17, counted after the command's name, which may hold anything. */
function ticks(pid: number | 'self'): number[] {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  return stat
    .slice(stat.lastIndexOf(')') + 2)
    .split(' ')
    .slice(11, 15)
    .map(Number)
}

/** Ticks of all cores since boot: all, those that ran something, and those a hypervisor gave to somebody else. */
export function machineTicks(): { total: number; busy: number; stolen: number } {
  if (cpuSource === 'none') return { total: 0, busy: 0, stolen: 0 }
  // user nice system idle iowait irq softirq steal
  const fields = readFileSync('/proc/stat', 'latin1').split('\n')[0]!.trim().split(/\s+/).slice(1, 9).map(Number)
  const total = fields.reduce((sum, value) => sum + value, 0)
  const stolen = fields[7] ?? 0
  return { total, busy: total - fields[3]! - fields[4]! - stolen, stolen }
}

/** Share of the machine that was busy with something else than `ownUs`, between two looks. */
export function othersShare(
  before: { total: number; busy: number },
  after: { total: number; busy: number },
  ownUs: number,
): number {
  return Math.max(0, after.busy - before.busy - ownUs / TICK_US) / Math.max(1, after.total - before.total)
}
