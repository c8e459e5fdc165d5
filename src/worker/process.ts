// What a forked worker process runs: no debugger, then worker-entry.ts. Two files, since all that one module imports is loaded before its first line runs.
import './no-debugger.js'

await import('./entry.js')
