// How a test waits for what announces itself to nobody. What does announce itself, a log line, a request or the end of
// a connection, is awaited where it happens: lines.ts, origins.ts, raw-client.ts.
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'

const LOOK_MS = 20
/** Far above what a loaded machine takes. Only a test that fails waits for so long. */
const WITHIN_MS = 20_000

/**
 * Looks until it sees what it waits for: a gauge of /status or /metrics, a file, a process. What `look` throws fails
 * the test.
 * @param what completes "waited for …"
 * @param wanted the value, or whether a value will do
 */
export async function eventually<T>(
  what: string,
  look: () => T | Promise<T>,
  wanted: T | ((seen: T) => boolean),
  withinMs = WITHIN_MS,
): Promise<T> {
  const fits = typeof wanted === 'function' ? (wanted as (seen: T) => boolean) : isEqualTo(wanted)
  const deadline = performance.now() + withinMs
  for (;;) {
    const seen = await look()
    if (fits(seen)) return seen
    if (performance.now() > deadline) {
      throw new Error(`waited ${withinMs} ms for ${what}; the last look saw ${JSON.stringify(seen)}`)
    }
    await pause(LOOK_MS)
  }
}

function isEqualTo<T>(wanted: T): (seen: T) => boolean {
  return (seen) => isDeepStrictEqual(seen, wanted)
}

/**
 * Resolves with a count that has stood still for a while: full buffers between processes tell nobody. A machine that
 * stands still as well ends it early, so that only an upper bound may be expected of the count.
 */
export async function settled(what: string, count: () => number, stillMs = 200): Promise<number> {
  let before = -1
  return eventually(
    `${what} to stand still`,
    async () => {
      before = count()
      await pause(stillMs)
      return count()
    },
    (now) => now === before,
  )
}

/**
 * Lets turns of this process's event loop pass. What takes a turn for each step, and nothing from outside, has taken as
 * many steps.
 */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await nextTurn()
}

/** Resolves when the wall clock, which all processes share, has come to `ms`. */
export async function untilTime(ms: number): Promise<void> {
  while (Date.now() < ms) await pause(ms - Date.now())
}

/** A promise, and what settles it: Promise.withResolvers, which Node 20 does not have. */
export function deferred<T = void>(): { readonly promise: Promise<T>; readonly resolve: (value: T) => void } {
  let resolve!: (value: T) => void
  const promise = new Promise<T>((settle) => {
    resolve = settle
  })
  return { promise, resolve }
}
