// npm run bench: the gateway beside its peers. README.md says how it measures and what it cannot tell.
import { fileURLToPath } from 'node:url'
import { options, USAGE, UsageError } from './options.js'
import { plan } from './plan.js'
import { writeReport } from './report-files.js'
import { SCENARIOS, title } from './scenarios.js'
import { inventory, measure } from './session.js'
import { haproxy } from './targets/haproxy.js'
import { nginx, nginxLua } from './targets/nginx.js'
import { fastifyHttpProxy, httpxy } from './targets/node-proxies.js'
import { tidegate } from './targets/tidegate.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const TARGETS = [
  tidegate('tidegate', ROOT),
  tidegate('tidegate-pipelined', ROOT, { pipelining: 32 }),
  nginx,
  nginxLua,
  haproxy,
  fastifyHttpProxy,
  httpxy,
]

try {
  if (process.argv.includes('--help') || process.argv.includes('-h')) console.log(USAGE)
  else process.exitCode = await run()
} catch (error) {
  if (!(error instanceof UsageError)) throw error
  console.error(`${error.message}\n\n${USAGE}`)
  process.exitCode = 2
}

async function run(): Promise<number> {
  const names = TARGETS.map((target) => target.name)
  const asked = options(process.argv.slice(2), names)
  const found = await inventory(TARGETS)
  const planned = plan(asked, [...found.targets.keys()])
  if (asked.list) {
    for (const [name, what] of Object.entries(SCENARIOS)) console.log(`${name.padEnd(12)}${what}`)
    console.log()
    for (const name of names) {
      const skipped = found.skipped.find((one) => one.target === name)
      console.log(
        `${name.padEnd(20)}${skipped ? `not here: ${skipped.missing} (${skipped.install})` : found.versions[name]}`,
      )
    }
    console.log(`\nload: ${found.generator.name}\n`)
    for (const { spec, contenders } of planned)
      console.log(`${title(spec).padEnd(36)}${contenders.map((one) => one.label).join(', ')}`)
    return 0
  }
  if (planned.length === 0) throw new UsageError('nothing to measure: none of the targets asked for is on this machine')
  const report = await measure(found, planned)
  const files = writeReport(report, ROOT, asked.json)
  console.log(
    `${report.tookSeconds} s; ${report.machine.stolenPercent} % of the CPU was taken by the hypervisor; ${files.join(', ')}`,
  )
  const marked = report.cases.flatMap((one) => [
    ...one.refused.map(({ target, why }) => `${one.title}: ${target} ${why}`),
    ...one.results
      .filter((result) => result.errors + result.unexpected > 0)
      .map((result) => `${one.title}: ${result.target}: ${result.marks.join('; ')}`),
  ])
  for (const line of marked) console.log(`! ${line}`)
  return marked.length === 0 ? 0 : 1
}
