// `tidegate start`: runs the primary until it ends, passes signals on to it, and prints where it listens if stdout is a
// terminal. The demo's origin runs in this process too: the primary sees no request.
import { isStartedByNpm, type Loaded, loadConfig } from '../config/load.js'
import { type Primary, startPrimary } from '../primary/primary.js'
import { StartError } from '../primary/start-error.js'
import { demoConfig, demoCurl, startDemoOrigin } from './demo.js'

export { StartError }

const PARENT_LOOK_MS = 500

/** Resolves with the exit code. */
export function startGateway(loaded: Loaded, takesOver: boolean): Promise<number> {
  // A reload reads the same file, even if the environment changed: settings are read once.
  const load = (): Loaded => loadConfig({ file: loaded.settings.configFile })
  const onListening = (running: Primary): void => {
    if (process.stdout.isTTY) process.stdout.write(banner(loaded, running))
  }
  return runPrimary(loaded, load, onListening, takesOver)
}

export async function startDemo(): Promise<number> {
  const origin = await startDemoOrigin()
  try {
    if (isStartedByNpm()) endWithParent()
    const load = (): Loaded => loadConfig({ text: { origin: 'demo', yaml: demoConfig(origin.url) } })
    const loaded = load()
    return await runPrimary(loaded, load, (running) => {
      process.stdout.write(`${banner(loaded, running)}\nTry it:\n\n  ${demoCurl(running.port)}\n\n`)
    })
  } finally {
    origin.close()
  }
}

/**
 * `npm start` is for a person at a terminal: its gateway drains when npm is gone, because a killed npm passes no signal
 * on. Any other gateway outlives the process that started it.
 */
function endWithParent(): void {
  const parent = process.ppid
  const timer = setInterval(() => {
    if (process.ppid === parent) return
    clearInterval(timer)
    process.kill(process.pid, 'SIGTERM')
  }, PARENT_LOOK_MS).unref()
}

/** Runs until a signal ends it. A second signal ends it without waiting for requests in flight. */
async function runPrimary(
  loaded: Loaded,
  load: () => Loaded,
  onListening: (running: Primary) => void,
  takesOver = false,
): Promise<number> {
  let running: Primary | null = null
  let signals = 0
  const stop = (): void => {
    // Nothing is served yet, and workers leave with the primary.
    if (running === null) process.exit(0)
    if (signals++ === 0) return running.drain()
    running.kill()
    process.exit(1)
  }
  // Set before the start, so that a signal during it, or right after it, does not have its default action.
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  // During the start, configuration and log files are already open: the signal's request runs once the start is over.
  const asked = new Set<(primary: Primary) => unknown>()
  const ask = (action: (primary: Primary) => unknown): void => {
    if (running === null) asked.add(action)
    else void action(running)
  }
  const reload = (primary: Primary): unknown => primary.reload('signal')
  const reopenLogs = (primary: Primary): unknown => primary.reopenLogs()
  process.on('SIGHUP', () => ask(reload))
  process.on('SIGUSR1', () => ask(reopenLogs))
  process.on('SIGUSR2', () => {
    const problem = running?.restart() ?? ''
    if (problem !== '') process.emitWarning(problem)
  })
  running = await startPrimary(loaded, load, takesOver)
  for (const action of asked) void action(running)
  onListening(running)
  return running.ended
}

function banner({ settings, config, origin }: Loaded, running: Primary): string {
  const workers = `${settings.workers} ${settings.workers === 1 ? 'worker' : 'workers'}`
  return `
tidegate listens on ${url(settings.host, running.port, config.tls === undefined ? 'http' : 'https')} (${workers}, ${origin})
numbers and health on ${url(settings.adminHost, running.adminPort)}/status
`
}

function url(host: string, port: number, scheme = 'http'): string {
  const shown = host === '0.0.0.0' || host === '::' ? '127.0.0.1' : host
  return `${scheme}://${shown.includes(':') ? `[${shown}]` : shown}:${port}`
}
