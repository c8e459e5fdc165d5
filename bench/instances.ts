// The running contenders: started when a case first needs them, kept for later cases that ask for the same job, so that
// each is warm.
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, readFileSync, truncateSync } from 'node:fs'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { Cores } from './machine.js'
import { freePort, processTree, start, stop, workFolder } from './processes.js'
import type { Case, Contender } from './scenarios.js'
import { slowDown } from './slow.js'
import type { Profile, Started, Target } from './targets/target.js'

const START_DEADLINE_MS = 15_000
const LOG_IS_WRITTEN_MS = 1200

export class Instance {
  /** The ways a request can take through it that it has been warmed up for. */
  readonly warmFor = new Set<string>()
  constructor(
    readonly started: Started,
    readonly port: number,
    /** The target and whatever slows it down. */
    readonly pids: readonly number[],
  ) {}

  emptyLog(): void {
    try {
      if (this.started.accessLog !== null) truncateSync(this.started.accessLog)
    } catch {} // not written yet
  }

  /** The first lines of its access log that tell of another status, once they are written. */
  async loggedOtherThan(status: number): Promise<string[]> {
    if (this.started.accessLog === null) return []
    await wait(LOG_IS_WRITTEN_MS)
    const lines = readFileSync(this.started.accessLog, 'latin1').split('\n')
    return lines
      .filter((line) => (/"(?:status|s)":(\d{3})/.exec(line)?.[1] ?? status) !== String(status) && line !== '')
      .slice(0, 3)
  }

  /** Resident memory of its largest process: a worker. */
  get rssMiB(): number {
    let most = 0
    for (const pid of processTree(this.pids[0]!)) {
      try {
        most = Math.max(most, Number(/VmRSS:\s*(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1] ?? 0))
      } catch {}
    }
    return most / 1024
  }
}

export class Instances {
  private readonly running = new Map<string, Instance>()
  private readonly failures = new Map<string, Error>()
  private readonly children: ChildProcess[] = []

  constructor(
    private readonly targets: ReadonlyMap<string, Target>,
    private readonly cores: Cores,
    private readonly origin: Origin,
  ) {}

  async of(contender: Contender, spec: Case): Promise<Instance> {
    const profile: Profile = {
      job: spec.job,
      workers: spec.wholeMachine && spec.offload !== true ? this.cores.all : 1,
      cpus: spec.wholeMachine ? null : this.cores.target,
      ...(contender.offloadBytes === undefined ? {} : { offloadBytes: contender.offloadBytes }),
    }
    const key = JSON.stringify([contender, profile])
    let found = this.running.get(key)
    if (found !== undefined) return found
    // What does not start does not start for the next case either.
    const failure = this.failures.get(contender.target)
    if (failure !== undefined) throw failure
    try {
      found = await this.launch(contender, profile)
      this.running.set(key, found)
      return found
    } catch (error) {
      this.failures.set(contender.target, error as Error)
      throw error
    }
  }

  private async launch(contender: Contender, profile: Profile): Promise<Instance> {
    const [port, adminPort] = [await freePort(), await freePort()]
    const directory = path.join(workFolder(), String(port))
    mkdirSync(directory, { recursive: true })
    const started = await this.targets
      .get(contender.target)!
      .start(profile, { directory, port, adminPort, originPort: this.origin.port })
    this.children.push(started.process)
    await becomesReady(started)
    const pids = [started.process.pid!]
    if (contender.slowedBy > 0) {
      const brake = slowDown(pids[0]!, contender.slowedBy, profile.cpus)
      this.children.push(brake)
      pids.push(brake.pid!)
    }
    return new Instance(started, port, pids)
  }

  async stopAll(): Promise<void> {
    await Promise.all(this.children.map((child) => stop(child)))
    this.running.clear()
  }
}

async function becomesReady(started: Started): Promise<void> {
  let said = ''
  const keep = (chunk: Buffer) => (said = (said + chunk).slice(-2000))
  started.process.stdout?.on('data', keep)
  started.process.stderr?.on('data', keep)
  const deadline = Date.now() + START_DEADLINE_MS
  while (!(await started.ready())) {
    const ended = started.process.exitCode !== null || started.process.signalCode !== null
    if (ended || Date.now() > deadline) throw new Error(`does not start: ${reason(said)}`)
    await wait(20)
  }
}

/** Of all that a process printed on its way out, the first line that speaks of an error. */
function reason(said: string): string {
  const lines = said.split('\n').filter((line) => line.trim() !== '')
  return (lines.find((line) => /error|cannot|failed|alert|emerg/i.test(line)) ?? lines.at(-1) ?? 'it said nothing')
    .trim()
    .slice(0, 200)
}

/** The service behind all of them. */
export class Origin {
  private constructor(
    private readonly child: ChildProcess,
    readonly port: number,
  ) {}

  static async start(cpus: string | null): Promise<Origin> {
    const port = await freePort()
    const file = fileURLToPath(new URL('./origin.js', import.meta.url))
    const child = start(process.execPath, [file, String(port)], cpus, {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    })
    await once(child, 'message')
    return new Origin(child, port)
  }

  get pid(): number {
    return this.child.pid!
  }

  /** Requests that reached it since it started. */
  async answered(): Promise<number> {
    const reply = once(this.child, 'message')
    this.child.send('answered?')
    return ((await reply)[0] as { answered: number }).answered
  }

  stop(): Promise<void> {
    return stop(this.child)
  }
}
