// npm runs it after `npm install` in a checkout, before it packs the package, and where the package is installed from a
// Git repository: builds what the package consists of. Where the sources are not there yet (the image's first steps) or
// TypeScript was left out (--omit=dev), there is nothing to do.
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
if (['tsconfig.json', 'src/cli/main.ts', 'node_modules/typescript'].every((path) => existsSync(root + path))) {
  process.exitCode = spawnSync('npm', ['run', '--silent', 'build'], { cwd: root, stdio: 'inherit' }).status ?? 1
}
