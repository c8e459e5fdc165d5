// Stand-alone SVG, readable in light and dark: text and axes take the reader's colours.
import { decode } from './histogram.js'
import type { CaseResult, Report, Result } from './results.js'
import type { Sample } from './soak.js'

const COLOURS: Readonly<Record<string, string>> = {
  tidegate: '#0b7285',
  'tidegate-pipelined': '#12b886',
  nginx: '#868e96',
  'worker 0': '#0b7285',
  'worker 1': '#e8590c',
  p50: '#12b886',
  p99: '#e8590c',
  'nginx+lua': '#e8590c',
  haproxy: '#7048e8',
  'fastify-http-proxy': '#d6336c',
  httpxy: '#a61e4d',
}
const STYLE = `<style>
  text { font: 13px system-ui, sans-serif; fill: #343a40 } .small { font-size: 11px } .title { font-weight: 600; font-size: 15px }
  .axis { stroke: #adb5bd; stroke-width: 1; fill: none } .grid { stroke: #adb5bd; stroke-opacity: .35; fill: none }
  @media (prefers-color-scheme: dark) { text { fill: #dee2e6 } }
</style>`

function colour(target: string): string {
  return COLOURS[target] ?? COLOURS[target.replace(/ .*/, '')] ?? '#495057'
}

function svg(width: number, height: number, label: string, parts: readonly string[]): string {
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(label)}">${STYLE}\n${parts.join('\n')}\n</svg>\n`
}

export function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`)
}

function text(x: number, y: number, content: string, attributes = ''): string {
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" ${attributes}>${escaped(content)}</text>`
}

/**
 * CPU per request by target: bars with min–max, one group per case. Second processes of a build are left to the tables.
 */
export function cpuChart(report: Report): string {
  const groups = report.cases
    .filter((one) => ['whole-job', 'bare', 'reference'].includes(one.spec.scenario))
    .map((one) => ({
      title: groupTitle(one),
      results: one.results.filter((result) => !result.target.includes('(again)')),
    }))
  const widest = Math.max(1, ...groups.flatMap((group) => group.results.map((one) => one.cpuUsPerRequest.max)))
  const left = 170
  const scale = 470 / widest
  const parts = [text(16, 24, 'CPU per request, µs (less is better)', 'class="title"')]
  let y = 40
  for (const group of groups) {
    y += 26
    parts.push(text(16, y, group.title, 'font-weight="600"'))
    for (const one of group.results) {
      const { median, min, max } = one.cpuUsPerRequest
      y += 24
      parts.push(
        text(left - 8, y, one.target, 'text-anchor="end"'),
        `<rect x="${left}" y="${y - 13}" width="${(median * scale).toFixed(1)}" height="17" rx="2" fill="${colour(one.target)}"/>`,
        `<path class="axis" d="M${(left + min * scale).toFixed(1)} ${y - 4.5}H${(left + max * scale).toFixed(1)}"/>`,
        text(left + Math.max(median, max) * scale + 8, y, median.toFixed(1)),
      )
    }
    y += 8
  }
  parts.push(
    text(
      16,
      y + 28,
      `${report.machine.cpu}, one core per target; median of interleaved rounds, line from least to most`,
      'class="small"',
    ),
  )
  return svg(720, y + 42, 'CPU per request by target', parts)
}

function groupTitle(one: CaseResult): string {
  if (one.spec.scenario === 'bare') return 'Forwarding alone'
  return one.spec.scenario === 'reference'
    ? 'The whole job, a connection per request'
    : 'The whole job: signature, limit, breaker, log, metrics'
}

interface Line {
  readonly name: string
  readonly points: readonly (readonly [x: number, y: number])[]
}

interface Axes {
  readonly title: string
  readonly x: {
    readonly label: string
    readonly ticks: readonly (readonly [at: number, label: string])[]
    readonly place: (value: number) => number
  }
  readonly y: {
    readonly ticks: readonly (readonly [at: number, label: string])[]
    readonly place: (value: number) => number
  }
}

/** `place` gives 0 to 1. */
function lineChart(axes: Axes, lines: readonly Line[]): string {
  const [left, top, width, height] = [70, 44, 500, 260]
  const x = (value: number) => left + axes.x.place(value) * width
  const y = (value: number) => top + (1 - axes.y.place(value)) * height
  const parts = [
    text(16, 24, axes.title, 'class="title"'),
    `<path class="axis" d="M${left} ${top}V${top + height}H${left + width}"/>`,
  ]
  for (const [at, label] of axes.y.ticks) {
    parts.push(
      `<path class="grid" d="M${left} ${y(at).toFixed(1)}h${width}"/>`,
      text(left - 6, y(at) + 4, label, 'text-anchor="end" class="small"'),
    )
  }
  for (const [at, label] of axes.x.ticks) {
    parts.push(
      `<path class="grid" d="M${x(at).toFixed(1)} ${top}v${height}"/>`,
      text(x(at), top + height + 18, label, 'text-anchor="middle" class="small"'),
    )
  }
  parts.push(text(left + width / 2, top + height + 36, axes.x.label, 'text-anchor="middle" class="small"'))
  lines.forEach((line, i) => {
    const path = line.points.map(([a, b], n) => `${n === 0 ? 'M' : 'L'}${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join('')
    parts.push(
      `<path d="${path}" fill="none" stroke="${colour(line.name)}" stroke-width="2" stroke-linejoin="round"${line.name.includes('(') ? ' stroke-dasharray="4 3"' : ''}/>`,
    )
    parts.push(
      `<rect x="${left + width + 16}" y="${top + 20 * i}" width="12" height="12" rx="2" fill="${colour(line.name)}"/>`,
      text(left + width + 34, top + 11 + 20 * i, line.name),
    )
  })
  return svg(760, top + height + 52, axes.title, parts)
}

const PERCENTILES = [0, 10, 25, 50, 75, 90, 95, 97.5, 99, 99.5, 99.75, 99.9, 99.95, 99.99]

/** Both axes logarithmic: distance from 100 %, and milliseconds. */
export function latencyChart(of: CaseResult): string {
  const lines = of.results.map((one) => ({ name: one.target, points: latencyPoints(one) }))
  const all = lines.flatMap((line) => line.points.map(([, latencyMs]) => latencyMs))
  const low = Math.floor(Math.log10(Math.max(0.01, Math.min(...all))))
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...all))))
  const nines = (percentile: number) => -Math.log10(1 - percentile / 100) / 4
  return lineChart(
    {
      title: `Latency, ms: ${of.title}`,
      x: { label: 'percentile', ticks: [0, 50, 90, 99, 99.9, 99.99].map((at) => [at, String(at)]), place: nines },
      y: {
        ticks: Array.from({ length: high - low + 1 }, (_, i) => [
          10 ** (low + i),
          String(+(10 ** (low + i)).toPrecision(1)),
        ]),
        place: (value) => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low),
      },
    },
    lines,
  )
}

/** Percentiles the number of answers can carry: a p99.99 of 5,000 answers is their maximum. */
function latencyPoints(one: Result): [number, number][] {
  const latency = decode(one.histogram)
  return PERCENTILES.filter((at) => at < 100 - 100 / Math.max(2, one.requests)).map((at) => [
    at,
    latency.getValueAtPercentile(at) / 1000,
  ])
}

/** Throughput by number of connections. */
export function fanChart(cases: readonly CaseResult[]): string {
  const byTarget = new Map<string, [number, number][]>()
  for (const one of cases) {
    for (const result of one.results) {
      const points = byTarget.get(result.target) ?? []
      points.push([one.spec.connections, result.rps.median])
      byTarget.set(result.target, points)
    }
  }
  const most = Math.max(...[...byTarget.values()].flat().map(([, rps]) => rps))
  const step = [1000, 2000, 5000, 10_000, 20_000, 50_000].find((size) => most / size <= 6) ?? 100_000
  const top = Math.ceil(most / step) * step
  const counts = cases.map((one) => one.spec.connections)
  const decades = Math.max(1, Math.log10(Math.max(...counts)))
  return lineChart(
    {
      title: 'Requests per second by connections, the whole job',
      x: {
        label: 'connections',
        ticks: counts.map((count) => [count, count.toLocaleString('en')]),
        place: (value) => Math.log10(value) / decades,
      },
      y: {
        ticks: Array.from({ length: top / step + 1 }, (_, i) => [i * step, (i * step).toLocaleString('en')]),
        place: (value) => value / top,
      },
    },
    [...byTarget].map(([name, points]) => ({ name, points })),
  )
}

/** What a soak watches, over its minutes, as one HTML page. */
export function soakCharts(samples: readonly Sample[]): string {
  const over = (title: string, lines: Record<string, (one: Sample) => number>): string => {
    const drawn = Object.entries(lines).map(([name, value]) => ({
      name,
      points: samples.map((one) => [one.minute, value(one)] as const),
    }))
    const most = Math.max(...drawn.flatMap((line) => line.points.map(([, value]) => value))) * 1.1 || 1
    const last = samples.at(-1)!.minute
    const ticks = (to: number) =>
      Array.from({ length: 6 }, (_, i) => [(i * to) / 5, ((i * to) / 5).toPrecision(3)] as const)
    return lineChart(
      {
        title,
        x: { label: 'minutes', ticks: ticks(last), place: (value) => value / last },
        y: { ticks: ticks(most), place: (value) => value / most },
      },
      drawn,
    )
  }
  const byWorker = (value: (worker: Sample['workers'][number]) => number) =>
    Object.fromEntries(samples[0]!.workers.map((_, i) => [`worker ${i}`, (one: Sample) => value(one.workers[i]!)]))
  const charts = [
    over(
      'Resident memory, MiB',
      byWorker((worker) => worker.rssMiB),
    ),
    over(
      'Open descriptors while nobody is connected',
      byWorker((worker) => worker.descriptors),
    ),
    over('Latency, ms', { p50: (one) => one.p50Ms, p99: (one) => one.p99Ms, 'p99.9': (one) => one.p999Ms }),
    over('Longest event-loop delay before the sample, ms', { delay: (one) => one.loopDelayMs }),
  ]
  return `<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>tidegate: soak</title>\n${charts.join('\n')}\n`
}
