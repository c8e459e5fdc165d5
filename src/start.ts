// `tidegate start`: runs the primary until it ends, and tells a person at a terminal where it listens. The demo's origin lives in this
// process, next to a primary that sees no request.
import { type Loaded, loadConfig } from './config/load.js'
import { StartError } from './control/start-error.js'
import { demoConfig, demoCurl, startDemoOrigin } from './demo.js'
import { type Running, runPrimary } from './primary.js'

export { StartError }

/** Resolves with the exit code. */
export function startGateway(loaded: Loaded, takesOver: boolean): Promise<number> {
  // The same file, whatever the environment says by then: settings are read once.
  const load = (): Loaded => loadConfig({ file: loaded.settings.configFile })
  const onListening = (running: Running): void => {
    if (process.stdout.isTTY) process.stdout.write(banner(loaded, running))
  }
  return runPrimary(loaded, load, onListening, takesOver)
}

export async function startDemo(): Promise<number> {
  const origin = await startDemoOrigin()
  try {
    const load = (): Loaded => loadConfig({ text: { origin: 'demo', yaml: demoConfig(origin.url) } })
    const loaded = load()
    return await runPrimary(loaded, load, (running) => {
      process.stdout.write(`${banner(loaded, running)}\nTry it:\n\n  ${demoCurl(running.port)}\n\n`)
    })
  } finally {
    origin.close()
  }
}

function banner({ settings, config, origin }: Loaded, running: Running): string {
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
