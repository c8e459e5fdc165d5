#!/usr/bin/env node
// The package's command. It is committed, so that npm and npx find it in a checkout that is not built yet; then it says
// what is missing.
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

// Before anything else is loaded: see src/worker/no-debugger.ts.
process.on('SIGUSR1', () => {})

const built = new URL('../dist/src/cli/main.js', import.meta.url)
if (existsSync(built)) await import(built.href)
else {
  const folder = fileURLToPath(new URL('..', import.meta.url))
  process.stderr.write(`error: tidegate is not built: run \`npm install && npm run build\` in ${folder}\n`)
  process.exitCode = 2
}
