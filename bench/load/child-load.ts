// Runs a load generator written in JavaScript as a process of its own, so that it can be pinned and its CPU told from
// the harness's.
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { decode } from '../histogram.js'
import { start } from '../processes.js'
import type { Load, LoadResult } from './load.js'

/** What the child prints on its last line; the histogram in HDR's own compressed form. */
export interface ChildResult extends Omit<LoadResult, 'latencyUs'> {
  readonly latencyUs: string
  readonly lagUs?: string
  readonly unsent?: number
}

export async function runChild(
  script: string,
  load: Load,
  extra: object = {},
): Promise<LoadResult & { lagUs?: string; unsent?: number }> {
  const file = fileURLToPath(new URL(script, import.meta.url))
  const child = start(process.execPath, [file, JSON.stringify({ ...load, ...extra })], load.cpus)
  let text = ''
  let problems = ''
  child.stdout!.on('data', (chunk) => (text += chunk))
  child.stderr!.on('data', (chunk) => (problems += chunk))
  await once(child, 'close')
  const line = text.trim().split('\n').at(-1)
  if (child.exitCode !== 0 || !line) throw new Error(`${script} did not finish: ${problems.slice(0, 1000)}`)
  const result = JSON.parse(line) as ChildResult
  return { ...result, latencyUs: decode(result.latencyUs) }
}
