// The entry of a forked worker process: no-debugger.ts, then entry.ts. A file of its own, because a module's imports
// load before its first line runs.
import './no-debugger.js'

await import('./entry.js')
