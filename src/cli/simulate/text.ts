// Prints the report of a simulation for people. Pure.
import type { Pair } from '../../simulate/comparison.js'
import { CLASSES } from '../../simulate/comparison.js'
import type { BreakerReport, OpeningReport, Report, Who } from '../../simulate/report.js'
import { columns, count, grouped, pair, percent } from './columns.js'

/** Rows of a table; `--json` has more. */
const MOST_ROWS = 20
const MOST_OPENINGS_SHOWN = 5

/** @param onlyChanges leaves out what is the same on both sides: for two configurations */
export function reportText(report: Report, onlyChanges: boolean, emphasise: (text: string) => string): string {
  const sections = [
    headOf(report),
    section('Requests that end differently', changeRows(report)),
    section('Routes', routeRows(report, onlyChanges)),
    section('Refused by limits', limitRows(report, onlyChanges)),
    section('Breakers', breakerRows(report, onlyChanges)),
    section('Retries', retryRows(report, onlyChanges)),
    section('Shares of services', shareRows(report, onlyChanges)),
    section('What the log does not tell', unknownRows(report)),
  ]
  return sections
    .filter((lines) => lines.length > 0)
    .map(([head, ...lines]) => [emphasise(head as string), ...lines].join('\n'))
    .join('\n\n')
}

function section(head: string, lines: readonly string[]): string[] {
  return lines.length === 0 ? [] : [head, ...lines]
}

function headOf({ sides: [left, right], log, changed, elsewhere }: Report): string[] {
  const what = left === 'log' ? `what was logged → ${right}` : `${left} → ${right}`
  const share =
    changed === 0
      ? `every request ${left === 'log' ? 'ends as it did' : 'ends in the same way'}`
      : `${grouped(changed)} of ${count(log.requests, 'request')} (${percent(changed, log.requests)}) would end differently`
  const files = log.files.map((file) => (file === '-' ? 'standard input' : file)).join(', ')
  const lines = [
    `${what}: ${log.requests === 0 ? 'the log has no requests' : share}`,
    `  ${files}: ${count(log.requests, 'request')}${log.from === null ? '' : `, ${log.from} to ${log.to}`}`,
  ]
  if (elsewhere > 0) lines.push(`  ${count(elsewhere, 'more request')} to another service`)
  if (log.malformed > 0) {
    lines.push(`  left out ${count(log.malformed, 'line')} of another kind:`)
    for (const { file, line, problem } of log.firstMalformed) lines.push(`    ${file}:${line} ${problem}`)
    if (log.malformed > log.firstMalformed.length) lines.push('    …')
  }
  if (log.late > 0)
    lines.push(`  ${count(log.late, 'request')} took too long to be replayed when it began, and came later`)
  return lines
}

function changeRows({ changes }: Report): string[] {
  if (changes.length === 0) return []
  const rows = changes
    .slice(0, MOST_ROWS)
    .map(({ from, to, requests, who }) => [
      from,
      `→ ${to}`,
      grouped(requests),
      who.map((one) => `${one.name} ${grouped(one.requests)}`).join(', '),
    ])
  return [
    ...columns([{ head: 'FROM' }, { head: 'TO' }, { head: 'REQUESTS', right: true }, { head: 'WHO' }], rows),
    ...more(changes.length),
  ]
}

function routeRows({ routes, moved }: Report, onlyChanges: boolean): string[] {
  const rows = routes
    .filter(
      ({ requests, statuses, limitReported }) =>
        !onlyChanges || [requests, limitReported, ...Object.values(statuses)].some(differs),
    )
    .map(({ route, requests, statuses, limitReported }) => [
      route,
      pair(requests),
      ...CLASSES.map((text) => pair(statuses[text] ?? [0, 0])),
      pair(limitReported),
    ])
  const lines =
    rows.length === 0
      ? []
      : columns(
          [
            { head: 'ROUTE' },
            ...['REQUESTS', ...CLASSES.map((text) => text.toUpperCase()), 'REPORTED'].map((head) => ({
              head,
              right: true,
            })),
          ],
          rows.slice(0, MOST_ROWS * 5),
        )
  return [
    ...lines,
    ...moved.slice(0, MOST_ROWS).map(({ routes, requests }) => `  ${count(requests, 'request')}: ${routes}`),
  ]
}

function limitRows({ limits }: Report, onlyChanges: boolean): string[] {
  const rows = limits
    .filter(({ refused }) => !onlyChanges || differs(refused))
    .map(({ limit, refused, first, last, who }) => [
      limit,
      pair(refused),
      whoText(who),
      first[1] ?? first[0] ?? '',
      last[1] ?? last[0] ?? '',
    ])
  if (rows.length === 0) return []
  return [
    ...columns(
      [{ head: 'LIMIT' }, { head: 'REFUSED', right: true }, { head: 'WHO' }, { head: 'FIRST' }, { head: 'LAST' }],
      rows.slice(0, MOST_ROWS),
    ),
    ...more(rows.length),
  ]
}

function whoText(who: readonly Who[]): string {
  return who.map(({ name, requests }) => `${name} ${pair(requests)}`).join(', ')
}

function breakerRows({ breakers }: Report, onlyChanges: boolean): string[] {
  const differ = (one: BreakerReport): boolean =>
    differs(one.refused) || JSON.stringify(one.openings[0]) !== JSON.stringify(one.openings[1])
  return breakers
    .filter((one) => !onlyChanges || differ(one))
    .flatMap(({ service, refused, opened, openings }) => {
      const times = opened[0] === null ? grouped(opened[1]) : pair([opened[0], opened[1]]) || '0'
      return [
        `  ${service}: openings ${times}, refused ${pair(refused) || '0'}`,
        ...(openings[0] ?? []).slice(0, MOST_OPENINGS_SHOWN).map((one) => `    before  ${openingText(one)}`),
        ...openings[1]
          .slice(0, MOST_OPENINGS_SHOWN)
          .map((one) => `    ${openings[0] === null ? '' : 'after   '}${openingText(one)}`),
        ...(opened[1] > MOST_OPENINGS_SHOWN ? ['    …'] : []),
      ]
    })
}

function openingText({ at, reason, seconds, refused }: OpeningReport): string {
  const until = seconds === null ? 'until the end of the log' : `for ${seconds} s`
  return `${at}  ${until}, ${reason.replaceAll('_', ' ')}, refused ${grouped(refused)}`
}

function retryRows({ retries }: Report, onlyChanges: boolean): string[] {
  const rows = retries
    .filter(({ made, refusedByBudget }) => !onlyChanges || differs(made) || differs(refusedByBudget))
    .map(({ service, made, refusedByBudget }) => [service, pair(made), pair(refusedByBudget)])
  if (rows.length === 0) return []
  return columns(
    [{ head: 'SERVICE' }, { head: 'RETRIES', right: true }, { head: 'REFUSED BY THE BUDGET', right: true }],
    rows.slice(0, MOST_ROWS * 5),
  )
}

/** Of routes that more than one service got requests of. */
function shareRows({ routes }: Report, onlyChanges: boolean): string[] {
  const rows = routes
    .map((route) => ({ ...route, services: Object.entries(route.services) }))
    .filter(({ services }) => services.length > 1)
    .filter(({ services }) => !onlyChanges || services.some(([, counts]) => differs(counts)))
    .flatMap(({ route, services }) => {
      const total = (side: 0 | 1): number => services.reduce((sum, [, counts]) => sum + counts[side], 0)
      return services.map(([service, counts]) => {
        const before = percent(counts[0], total(0))
        const after = percent(counts[1], total(1))
        return [route, service, pair(counts), before === after ? after : `${before} → ${after}`]
      })
    })
  if (rows.length === 0) return []
  return columns(
    [{ head: 'ROUTE' }, { head: 'SERVICE' }, { head: 'REQUESTS', right: true }, { head: 'SHARE', right: true }],
    rows.slice(0, MOST_ROWS * 5),
  )
}

function unknownRows({ assumptions, notJudged }: Report): string[] {
  return [
    ...assumptions.map(({ what, requests }) => `  ${count(requests, 'request')} ${what}`),
    ...notJudged.map((text) => `  ${text}`),
  ]
}

function more(rows: number): string[] {
  return rows > MOST_ROWS ? [`  … and ${grouped(rows - MOST_ROWS)} more (--json)`] : []
}

function differs([left, right]: Pair): boolean {
  return left !== right
}
