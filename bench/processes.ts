// Every process the harness starts, and the folder they work in. All are ended by pid, with their descendants, however
// the harness ends.
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'

const running = new Set<ChildProcess>()
let folder: string | null = null

export function workFolder(): string {
  folder ??= mkdtempSync(path.join(tmpdir(), 'tidegate-bench-'))
  return folder
}

/** Started on `cpus` when pinning is possible. Its last output is kept, to be shown if it does not come up. */
export function start(
  command: string,
  args: readonly string[],
  cpus: string | null,
  options: SpawnOptions = {},
): ChildProcess {
  const line = cpus === null ? [command, ...args] : ['taskset', '-c', cpus, command, ...args]
  const child = spawn(line[0]!, line.slice(1), { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  running.add(child)
  child.once('exit', () => running.delete(child))
  child.once('error', () => running.delete(child))
  return child
}

/** The process and all it started, oldest first. Linux keeps the list of children per thread. */
export function processTree(pid: number): number[] {
  const found = [pid]
  for (let i = 0; i < found.length; i++) {
    try {
      for (const thread of readdirSync(`/proc/${found[i]}/task`)) {
        const children = readFileSync(`/proc/${found[i]}/task/${thread}/children`, 'latin1')
        for (const child of children.split(' ')) if (child !== '') found.push(Number(child))
      }
    } catch {} // gone in the meantime
  }
  return found
}

export async function stop(child: ChildProcess, graceMs = 1500): Promise<void> {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return
  const tree = processTree(child.pid)
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  await Promise.race([gone, wait(graceMs, undefined, { ref: false })])
  for (const pid of tree) kill(pid)
}

/** What is left at once and without waiting: for the end of the harness. */
export function killAll(): void {
  for (const child of running) for (const pid of processTree(child.pid ?? 0)) if (pid > 0) kill(pid)
  running.clear()
  if (folder !== null) rmSync(folder, { recursive: true, force: true, maxRetries: 3 })
  folder = null
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {} // ended by itself
}

const given = new Set<number>()

export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as { port: number }
  server.close()
  await once(server, 'close')
  if (given.has(port)) return freePort() // several are started at once, before they listen
  given.add(port)
  return port
}

export function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1')
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', () => resolve(false))
  })
}

/** stdout and stderr of a short command, or null when it cannot be run. */
export async function output(command: string, args: readonly string[]): Promise<string | null> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  let text = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (text += chunk))
  return new Promise((resolve) => {
    child.once('error', () => resolve(null))
    child.once('close', () => resolve(text))
  })
}

process.once('exit', killAll)
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  process.once(signal, () => process.exit(code))
}
