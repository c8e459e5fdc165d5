// SIGUSR1 opens Node's debugger in a process that does nothing about it. Here it does not, in no process of the gateway
// and at no time.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { expect, test } from 'vitest'
import { Command, cleanEnvironment, startGateway, writeConfig } from '../support/gateway.js'
import { eventually } from '../support/waiting.js'

const config = {
  services: { echo: { endpoints: ['http://127.0.0.1:9'] } },
  routes: [{ match: { path: '/' }, service: 'echo', auth: 'none' }],
}

/** TCP ports that the process listens on. */
function portsOf(pid: number): number[] {
  const sockets = new Set(
    readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1] ?? []
      } catch {
        // Closed meanwhile.
        return []
      }
    }),
  )
  const LISTENS = '0A'
  return ['tcp', 'tcp6']
    .flatMap((name) => readFileSync(`/proc/${pid}/net/${name}`, 'utf8').trim().split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter((fields) => fields[3] === LISTENS && sockets.has(fields[9]!))
    .map((fields) => Number.parseInt(fields[1]!.split(':')[1]!, 16))
}

test('SIGUSR1 to the primary and to each worker opens no debugger', async () => {
  const gateway = await startGateway({ config })
  const { workers } = await gateway.status()
  const pids = [...new Set([gateway.command.child.pid!, ...workers.map(({ pid }) => pid)])]
  for (const pid of pids) process.kill(pid, 'SIGUSR1')
  await gateway.log.find((line) => line.msg === 'log files opened anew', 'what the signal means to the primary')
  for (const pid of pids) {
    expect(portsOf(pid).filter((port) => port !== gateway.port && port !== gateway.adminPort)).toEqual([])
  }
  expect((await gateway.status()).workers.map(({ pid }) => pid)).toEqual(workers.map(({ pid }) => pid))
  await gateway.close()
  expect(gateway.command.stderr.text).not.toContain('Debugger')
})

test('SIGUSR1 while the gateway starts leaves no debugger open, and is no end of it', async () => {
  const command = new Command(['start', writeConfig(config)], cleanEnvironment({ TIDEGATE_WORKERS: '2' }))
  const primary = command.child.pid!
  const commandOf = (pid: number): string => readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  const children = (pid: number): number[] => {
    try {
      return readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').split(' ').filter(Boolean).map(Number)
    } catch {
      // It has ended, which the test is told elsewhere.
      return []
    }
  }
  /** Before Node has looked after it, SIGUSR1 ends any process. */
  const heeds = (pid: number): boolean => {
    try {
      // Forked, and not yet itself: libuv blocks its signals, and lets those that have come end it.
      if (pid !== primary && commandOf(pid) === commandOf(primary)) return false
      const status = readFileSync(`/proc/${pid}/status`, 'utf8')
      return ['SigCgt', 'SigBlk'].some(
        (name) => (BigInt(`0x${new RegExp(`${name}:\\s+(\\w+)`).exec(status)![1]}`) & 0x200n) !== 0n,
      )
    } catch {
      return false
    }
  }
  const sent = new Set<number>()
  const timer = setInterval(() => {
    for (const pid of [primary, ...children(primary)].filter(heeds)) {
      process.kill(pid, 'SIGUSR1')
      sent.add(pid)
    }
  }, 1)
  const { port, adminPort } = await command.log.find((line) => line.msg === 'listening', 'listening')
  const pids = [primary, ...children(primary)]
  // Where this process was without a core for all of the start, they have it a moment later.
  await eventually('a signal to each process', () => pids.every((pid) => sent.has(pid)), true)
  clearInterval(timer)
  // Node may have opened one before a line of ours ran: that one is closed.
  const others = (): number[] => pids.flatMap(portsOf).filter((one) => one !== port && one !== adminPort)
  await eventually('no port of a debugger', others, [])
  command.child.kill('SIGTERM')
  expect(await command.ended).toEqual({ code: 0, signal: null })
})
