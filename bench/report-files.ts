// Writes the report: results/latest.json, results/latest.html, and a chart. results/ is not kept in git.
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { cpuChart } from './charts.js'
import { html } from './report-html.js'
import type { Report } from './results.js'

/** The paths written, relative to the working directory. */
export function writeReport(report: Report, root: string, alsoTo: string | null): string[] {
  const folder = path.join(root, 'bench/results')
  mkdirSync(folder, { recursive: true })
  const text = json(report)
  const files: [string, string][] = [
    [path.join(folder, 'latest.json'), text],
    [path.join(folder, 'latest.html'), html(report)],
    [path.join(folder, 'cpu-per-request.svg'), cpuChart(report)],
    ...(alsoTo === null ? [] : [[path.resolve(alsoTo), text] as [string, string]]),
  ]
  for (const [file, content] of files) writeFileSync(file, content)
  return files.map(([file]) => path.relative(process.cwd(), file))
}

/** One flat list of results; everything about the run beside it. */
function json(report: Report): string {
  const { cases, ...run } = report
  const othersShare = Object.fromEntries(cases.map((one) => [one.title, one.othersShare]))
  const results = cases.flatMap((one) =>
    one.results.map((result) => ({ ...result, requestsPerSecondDue: one.requestsPerSecond })),
  )
  const refused = cases.flatMap((one) => one.refused.map((refusal) => ({ case: one.title, ...refusal })))
  return `${JSON.stringify({ ...run, othersShare, refused, results }, null, 1)}\n`
}
