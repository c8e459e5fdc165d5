// autocannon where wrk is not installed. Slower by far: on two cores it is the limit for most targets, and the table
// says so.
import { createRequire } from 'node:module'
import { runChild } from './child-load.js'
import type { LoadGenerator } from './load.js'

export function autocannon(): LoadGenerator | null {
  try {
    const { version } = createRequire(import.meta.url)('autocannon/package.json') as { version: string }
    return { name: `autocannon ${version}`, run: (load) => runChild('./autocannon-process.js', load) }
  } catch {
    return null
  }
}
