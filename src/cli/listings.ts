// Prints a valid configuration for `tidegate check` and `tidegate routes`. Pure.
import { compile, type Route } from '../config/compile.js'
import { GROUP } from '../config/credentials.js'
import { describeHandler } from '../config/handlers.js'
import type { Loaded } from '../config/load.js'
import { byPrecedence } from '../config/match.js'
import { describeMirror } from '../config/mirror.js'

export function describeConfig({ config, origin }: Loaded): string {
  const count = (number: number, what: string): string => `${number} ${what}${number === 1 ? '' : 's'}`
  const consumers = Object.keys(config.consumers).length
  const services = Object.keys(config.services).length
  return `${origin}: sound (${count(config.routes.length, 'route')}, ${count(services, 'service')}, ${count(consumers, 'consumer')})`
}

interface Row {
  readonly host: string
  readonly path: string
  readonly methods: string
  readonly headers: string
  readonly priority: number
  readonly name: string
  /** What answers: a service, or another handler. */
  readonly service: string
  readonly mirror: string
  readonly auth: string
  readonly limits: string
  readonly fallback: string
}

/** One row per host and route, in order of precedence: exact hosts, then suffixes from the longest, then any. */
function rowsOf(loaded: Loaded): Row[] {
  const { routes } = compile(loaded.config, loaded.settings)
  const rows = byPrecedence(routes).flatMap((route) =>
    (route.match.hosts.length === 0 ? ['*'] : route.match.hosts).map((host) => rowOf(route, host)),
  )
  return rows
    .map((row, rank) => ({ row, rank }))
    .sort(
      (a, b) =>
        hostClass(a.row.host) - hostClass(b.row.host) ||
        (hostClass(a.row.host) === 1 ? b.row.host.length - a.row.host.length : 0) ||
        (a.row.host < b.row.host ? -1 : a.row.host > b.row.host ? 1 : a.rank - b.rank),
    )
    .map(({ row }) => row)
}

function hostClass(host: string): number {
  if (host === '*') return 2
  return host.startsWith('*.') ? 1 : 0
}

function rowOf(route: Route, host: string): Row {
  const { path, caseInsensitive, slashIgnored, methods, headers, priority } = route.match
  const groups = route.allowGroups.map((group) => `${GROUP}${group}`)
  const allowed = route.allow === null ? 'any consumer' : [...route.allow, ...groups].join(',')
  return {
    host,
    path: `${path.exact ? '=' : ''}${path.text}${slashIgnored ? '[/]' : ''}${caseInsensitive ? ' (any case)' : ''}`,
    methods: methods === null ? '*' : [...methods].join(','),
    headers: headers.map(([name, value]) => `${name}: ${value}`).join(', '),
    priority,
    name: route.name,
    service: describeHandler(route.handler),
    mirror: describeMirror(route.mirror),
    auth: route.auth.length === 0 ? 'none' : `${route.auth.join(' or ')} (${allowed})`,
    limits: [...route.limits, ...route.inFlightLimits, ...route.guessLimits].map((limit) => limit.name).join(', '),
    fallback: route.fallback === null ? '' : describeHandler(route.fallback),
  }
}

const COLUMNS = [
  'host',
  'path',
  'methods',
  'headers',
  'priority',
  'name',
  'service',
  'mirror',
  'auth',
  'limits',
  'fallback',
] as const

/**
 * Aligned columns; empty ones are left out. `=` before a path: the whole path must match; `[/]` behind it: with or
 * without a slash.
 */
export function listRoutes(loaded: Loaded, emphasise: (text: string) => string): string {
  const rows = rowsOf(loaded)
  const silent = (column: keyof Row, value: string): boolean => rows.every((row) => String(row[column]) === value)
  const columns = COLUMNS.filter((column) => !silent(column, '') && !(column === 'priority' && silent(column, '0')))
  const widths = columns.map((column) => Math.max(column.length, ...rows.map((row) => String(row[column]).length)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, index) => cell.padEnd(widths[index] as number))
      .join('  ')
      .trimEnd()
  const head = line(columns.map((column) => column.toUpperCase()))
  return [emphasise(head), ...rows.map((row) => line(columns.map((column) => String(row[column]))))].join('\n')
}

export function routesAsJson(loaded: Loaded): string {
  return JSON.stringify(rowsOf(loaded), null, 2)
}
