// The report as one HTML file that needs nothing else: charts inline, tables under them.
import { cpuChart, escaped, fanChart, latencyChart } from './charts.js'
import { caseTable, head } from './report-table.js'
import type { Report } from './results.js'

const STYLE = `
  :root { color-scheme: light dark }
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
  pre { font: 12.5px/1.45 ui-monospace, monospace; overflow-x: auto; padding: .8rem 1rem; border: 1px solid #8884; border-radius: 6px }
  figure { margin: 1.5rem 0; overflow-x: auto } h2 { margin-top: 2.5rem }`

export function html(report: Report): string {
  const cases = report.cases.filter((one) => one.results.length > 0)
  const fan = cases.filter((one) => one.spec.scenario === 'fan')
  const latency = cases.filter((one) => ['reference', 'whole-job', 'bare', 'rate'].includes(one.spec.scenario))
  const charts = [cpuChart(report), ...(fan.length > 1 ? [fanChart(fan)] : []), ...latency.map(latencyChart)]
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>tidegate: benchmark</title>
<style>${STYLE}</style>
<h1>tidegate: benchmark</h1>
<p>${escaped(report.startedAt)}, ${report.tookSeconds} s, <code>npm run bench -- ${escaped(report.command)}</code></p>
<pre>${escaped(head(report))}
taken by the hypervisor: ${report.machine.stolenPercent} % of the CPU; load average ${report.machine.loadAverageAtStart} before, ${report.machine.loadAverageAtEnd} after</pre>
<p>CPU per request is the figure to steer by: it survives a noisy neighbour and a slow load generator, throughput does not. Medians of
interleaved rounds; percentiles are of all rounds' answers together. A difference inside the noise floor (two processes of one build
beside each other) is printed as no difference. bench/README.md says what these figures cannot tell.</p>
<h2>Charts</h2>
${charts.map((chart) => `<figure>${chart}</figure>`).join('\n')}
<h2>Tables</h2>
${report.cases.map((one) => `<pre>${escaped(caseTable(one))}</pre>`).join('\n')}
</html>
`
}
