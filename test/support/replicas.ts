// Servers that are replicas of one service, with one memory: whichever of them is asked first about a target does one
// thing, and the others do another. So a test need not know which endpoint a request is sent to first.
import { type Origin, type RawExchange, type Script, sha256, startScripted } from './origins.js'

export interface Replicas {
  readonly origins: readonly Origin[]
  /** What they have seen, by target: which of them, and the body's digest. */
  readonly seen: ReadonlyMap<string, readonly { readonly port: number; readonly body: string }[]>
  /** The attempts themselves, by target. */
  readonly exchanges: ReadonlyMap<string, readonly RawExchange[]>
  close(): Promise<void>
}

/** By path: what the first attempt at a target gets, and what the others get. */
export type Firstly = Readonly<Record<string, Script | readonly [first: Script, then: Script]>>

const second: Script = (exchange) => exchange.answer(200, {}, 'second')

/** Never answers. */
export const silent: Script = () => new Promise(() => {})

export function after(ms: number, script: Script): Script {
  return async (exchange) => {
    await new Promise((resolve) => setTimeout(resolve, ms))
    await script(exchange)
  }
}

export async function startReplicas(count: number, scripts: Firstly): Promise<Replicas> {
  const seen = new Map<string, { port: number; body: string }[]>()
  const exchanges = new Map<string, RawExchange[]>()
  const firstly = (first: Script, then: Script): Script => {
    return async (exchange) => {
      const { target, socket } = exchange
      const { bytes } = await exchange.body()
      const before = seen.get(target) ?? []
      seen.set(target, [...before, { port: socket.localPort!, body: sha256(bytes) }])
      exchanges.set(target, [...(exchanges.get(target) ?? []), exchange])
      await (before.length === 0 ? first : then)(exchange)
    }
  }
  const all = Object.entries(scripts).map(([path, script]) => {
    const [first, then] = typeof script === 'function' ? [script, second] : script
    return [path, firstly(first, then)] as const
  })
  const origins = await Promise.all(Array.from({ length: count }, () => startScripted(Object.fromEntries(all))))
  return {
    origins,
    seen,
    exchanges,
    async close() {
      await Promise.all(origins.map((origin) => origin.close()))
    },
  }
}
