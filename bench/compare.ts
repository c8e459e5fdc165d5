// npm run bench:compare -- REV [options of bench]: builds another revision in a worktree of its own and measures both,
// interleaved. With the noise floor from a second process of this one. For developers: an optimisation lands with this
// table.
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { options, UsageError } from './options.js'
import { workFolder } from './processes.js'
import type { Case, Contender } from './scenarios.js'
import { cases, SCENARIOS } from './scenarios.js'
import { inventory, measure } from './session.js'
import { tidegate } from './targets/tidegate.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const [revision, ...rest] = process.argv.slice(2)

try {
  if (revision === undefined || revision.startsWith('-'))
    throw new UsageError('which revision? npm run bench:compare -- REV [options]')
  await compare(revision, rest)
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  console.error(
    `${error.message}\n\nOptions: --scenario ${Object.keys(SCENARIOS).join(',')}, --duration, --connections, --rounds, --quick`,
  )
  process.exitCode = 2
}

async function compare(rev: string, argv: readonly string[]): Promise<void> {
  const asked = options(argv, [])
  const wanted = asked.scenarios ?? ['whole-job', 'bare', 'reference', 'reject']
  const other = path.join(workFolder(), 'other-revision')
  try {
    build(rev, other)
    const here = { target: 'this', label: 'this working tree', again: false, slowedBy: 0 }
    const contenders: Contender[] = [
      here,
      { ...here, label: 'this working tree (again)', again: true },
      { ...here, target: 'other', label: rev },
    ]
    const planned = cases(asked.quick && asked.scenarios === null)
      .filter((spec) => wanted.includes(spec.scenario) && spec.offload !== true)
      .map(
        (spec): Case => ({
          ...spec,
          roundMs: asked.roundMs ?? spec.roundMs,
          rounds: asked.rounds ?? spec.rounds,
          connections: asked.connections ?? spec.connections,
        }),
      )
      .map((spec) => ({ spec, contenders }))
    const found = await inventory([tidegate('this', ROOT), tidegate('other', other)])
    for (const one of found.skipped)
      if (one.target !== 'wrk') throw new Error(`${one.target}: ${one.missing} is missing`)
    const report = await measure(found, planned)
    console.log('CPU per request of this working tree, against the other revision:')
    for (const one of report.cases) {
      const against = one.results.find((result) => result.target === rev)?.against
      if (against)
        console.log(
          `  ${one.title.padEnd(28)} ${against.ratio.toFixed(3)}  ${against.verdict} (±${(against.within * 100).toFixed(1)} %)`,
        )
    }
  } finally {
    spawnSync('git', ['worktree', 'remove', '--force', other], { cwd: ROOT })
  }
}

/** A worktree of the revision, built the way a newcomer would build it. */
function build(rev: string, folder: string): void {
  const known = spawnSync('git', ['rev-parse', '--verify', '--quiet', `${rev}^{commit}`], {
    cwd: ROOT,
    encoding: 'utf8',
  })
  if (known.status !== 0) throw new UsageError(`git knows no revision ${rev}`)
  console.error(`building ${rev} (${known.stdout.trim().slice(0, 10)})`)
  run('git', ['worktree', 'add', '--detach', folder, known.stdout.trim()], ROOT)
  // A lock file may lack the optional packages of other platforms, which `npm ci` refuses and `npm install` mends.
  if (spawnSync('npm', ['ci', '--no-audit', '--no-fund'], { cwd: folder }).status !== 0) {
    run('npm', ['install', '--no-save', '--no-audit', '--no-fund'], folder)
  }
  run('npm', ['run', 'build'], folder)
}

function run(command: string, args: readonly string[], cwd: string): void {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: 'utf8' })
  if (status !== 0)
    throw new Error(
      `${command} ${args.join(' ')} failed: ${error?.message ?? `${stderr}${stdout}`.trim().slice(-2000)}`,
    )
}
