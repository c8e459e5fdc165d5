// The report as text for a terminal.
import type { CaseResult, Report, Result } from './results.js'
import { SCENARIOS } from './scenarios.js'

/**
 * `ab -c 100 -n 10000` against an OpenResty gateway that checks x-source, x-time and x-m; published without naming the
 * machine.
 */
export const REFERENCE = { rps: 11_072.9, p50Ms: 8, p99Ms: 20, maxMs: 29 }

export function caseTable(of: CaseResult): string {
  const { spec } = of
  const what = [
    `${spec.rounds} interleaved rounds of ${spec.roundMs / 1000} s`,
    spec.keepAlive ? `${spec.connections} connections` : `${spec.connections} connections, each for one request`,
    spec.wholeMachine ? 'whole machine' : 'one worker',
    ...(of.requestsPerSecond === null
      ? []
      : [`${Math.round(of.requestsPerSecond).toLocaleString('en')} requests due per second`]),
    `noise floor ±${percent(of.noiseFloor)}${of.noiseMeasured ? '' : ' (measured in another scenario)'}`,
    ...(of.othersShare > 0.05 ? [`DISTURBED: other processes took ${percent(of.othersShare)} of the machine`] : []),
  ]
  const subject = of.results.find((one) => one.against !== null)?.against?.subject
  const columns = [
    'target',
    'CPU µs/request',
    '(min–max)',
    subject ? `${subject} is` : '',
    'req/s',
    'p50 ms',
    'p99',
    'p99.9',
    'max',
    'load CPU',
    'MiB',
    '',
  ]
  const rows = [columns, ...of.results.map((one) => row(one))]
  const widths = columns.map((_, column) => Math.max(...rows.map((cells) => cells[column]!.length)))
  const lines = rows.map((cells) =>
    cells
      .map((cell, i) => (i === 0 || i === cells.length - 1 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)))
      .join('  '),
  )
  const out = [
    `${of.title} (${SCENARIOS[spec.scenario]})`,
    `  ${what.join(', ')}`,
    ...lines.map((line) => `  ${line.trimEnd()}`),
  ]
  for (const one of of.refused) out.push(`  ${one.target} is left out: ${one.why}`)
  for (const one of of.results)
    for (const line of one.evidence) out.push(`  ${one.target} logged ${line.slice(0, 300)}`)
  if (spec.ratePercent !== undefined) out.push(...tails(of.results))
  if (spec.scenario === 'reference') out.push(...reference(of.results))
  if (spec.answerBytes + spec.bodyBytes >= 1024) out.push(`  bytes per CPU second: ${of.results.map(bytes).join(', ')}`)
  return out.join('\n')
}

function row(one: Result): string[] {
  const cpu = one.cpuUsPerRequest
  return [
    one.target,
    cpu.median.toFixed(2),
    `(${cpu.min.toFixed(1)}–${cpu.max.toFixed(1)})`,
    comparison(one.against),
    Math.round(one.rps.median).toLocaleString('en'),
    ...[one.p50Ms, one.p99Ms, one.p999Ms, one.maxMs].map((figure) => ms(figure.median)),
    percent(one.busy.load),
    one.rssMiB.toFixed(0),
    one.marks.length > 0 ? `! ${one.marks.join('; ')}` : '',
  ]
}

function comparison(against: Result['against']): string {
  if (against === null) return ''
  if (against.verdict === 'no difference') return `no difference (±${percent(against.within)})`
  return `${against.ratio.toFixed(2)} of it (±${percent(against.within)})`
}

function reference(results: readonly Result[]): string[] {
  const lines = [
    `  The reference: ${REFERENCE.rps.toLocaleString('en')} req/s, p50 ${REFERENCE.p50Ms} ms, p99 ${REFERENCE.p99Ms} ms, max ${REFERENCE.maxMs} ms, on a machine that is not known (2017):`,
    '  only the targets beside each other above share one.',
  ]
  for (const one of results) {
    const times = one.rps.median / REFERENCE.rps
    lines.push(
      `  ${one.target}: ${times.toFixed(2)} times the reference's req/s, ${one.requests.toLocaleString('en')} requests, ${one.errors} failed`,
    )
  }
  return lines
}

/** The tail is what a constant rate is for. */
function tails([subject, ...others]: readonly Result[]): string[] {
  return others.map(
    (other) =>
      `  p99.9 of ${subject!.target} is ${(subject!.p999Ms.median / other.p999Ms.median).toFixed(2)} of ${other.target}'s`,
  )
}

function bytes(one: Result): string {
  return `${one.target} ${(one.bytesPerCpuSecond.median / 2 ** 20).toFixed(0)} MiB`
}

export function head(report: Pick<Report, 'machine' | 'load' | 'versions' | 'skipped'>): string {
  const { machine } = report
  const lines = [
    `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.kernel}, Node ${machine.node}`,
    `load: ${report.load}; ${machine.pinning === 'none' ? 'nothing is pinned (needs taskset and two cores)' : machine.pinning}; CPU from ${machine.cpuSource === 'none' ? 'nowhere: no /proc here, so the headline is missing' : `/proc/*/${machine.cpuSource}`}`,
    `targets: ${Object.entries(report.versions)
      .map(([name, version]) => `${name} ${version}`)
      .join(', ')}`,
    ...report.skipped.map((one) => `not here: ${one.target}: ${one.missing} (${one.install})`),
  ]
  return lines.join('\n')
}

export function ms(value: number): string {
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)
}

export function percent(fraction: number): string {
  return `${(fraction * 100).toFixed(fraction < 0.1 ? 1 : 0)} %`
}
