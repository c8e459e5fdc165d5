// The primary in this process, as built, with workers as they really are: for what no signal and no page of the admin
// listener asks of it.
import type { Loaded } from '../../src/config/load.js'
import type { Primary } from '../../src/primary/primary.js'
import { cleanEnvironment } from './gateway.js'
import { call } from './raw-client.js'

const built = (file: string): Promise<unknown> => import(new URL(`../../dist/src/${file}`, import.meta.url).href)

export interface RunningPrimary {
  readonly primary: Primary
  readonly port: number
  readonly isolation: 'process' | 'thread'
  /** For the next reload. */
  configure(config: object): void
  status(): Promise<PrimaryStatus>
  metrics(): Promise<string>
  /** Drains it. */
  close(): Promise<void>
}

export interface PrimaryStatus {
  readonly isolation: 'process' | 'thread'
  readonly ready: boolean
  readonly config: { readonly generation: number }
  readonly workers: readonly { readonly pid: number; readonly state: string; readonly memoryBytes: number }[]
  readonly services: readonly {
    readonly name: string
    readonly endpoints: readonly { readonly origin: string; readonly health: string }[]
  }[]
}

export async function startPrimaryHere(
  config: object,
  env: Readonly<Record<string, string>> = {},
): Promise<RunningPrimary> {
  const { loadConfig } = (await built('config/load.js')) as typeof import('../../src/config/load.js')
  const { startPrimary } = (await built('primary/primary.js')) as typeof import('../../src/primary/primary.js')
  const environment = cleanEnvironment({ TIDEGATE_ACCESS_LOG: 'off', TIDEGATE_LOG_LEVEL: 'error', ...env })
  let text = JSON.stringify(config)
  const load = (): Loaded => loadConfig({ text: { origin: 'test', yaml: text }, env: environment })
  const primary = await startPrimary(load(), load)
  const page = (target: string) => call(primary.adminPort, { target, host: 'localhost' })
  const status = async (): Promise<PrimaryStatus> => (await page('/status')).json<PrimaryStatus>()
  return {
    primary,
    port: primary.port,
    isolation: (await status()).isolation,
    configure(next) {
      text = JSON.stringify(next)
    },
    status,
    metrics: async () => (await page('/metrics')).text,
    async close() {
      primary.drain()
      await primary.ended
    },
  }
}
