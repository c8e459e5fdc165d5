// Compares two configurations entry by entry, for `tidegate diff` and the response of POST /reload. Pure. The result
// never shows a value that may be a secret.
import { routeNames } from './compile.js'
import type { Config } from './schema.js'

/** For longer values, such as fallback bodies, the diff only says that they differ. */
const MAX_SHOWN = 80
/**
 * Keys whose text is never shown. `headers` is among them, since a route may be selected by a header that only some
 * clients know.
 */
const SECRET = /secret|password|passphrase|token|private|key|cookie|^certificates$|^headers$/i

/**
 * One line each: `+` came, `-` went, `~` changed. In the order of the sections, then as the entries stand in the new
 * one.
 */
export function diffConfigs(before: Config, after: Config): string[] {
  const lines: string[] = []
  const sections = new Set([...Object.keys(before), ...Object.keys(after)]) as Set<keyof Config>
  for (const section of sections) {
    if (section === 'routes') continue
    // Any value of a consumer may be a secret, or reveal one.
    compare(lines, section, before[section], after[section], section === 'consumers')
  }
  const old = routesByName(before)
  const now = routesByName(after)
  compare(lines, 'routes', Object.fromEntries(old), Object.fromEntries(now), false)
  const stayed = [...now.keys()].filter((name) => old.has(name))
  if (stayed.join('\n') !== [...old.keys()].filter((name) => now.has(name)).join('\n'))
    lines.push('~ routes: their order')
  return lines
}

function routesByName({ routes }: Config): Map<string, unknown> {
  const names = routeNames(routes)
  return new Map(routes.map((route, index) => [names[index] as string, route]))
}

/** @param depth 0 for a section, 1 for an entry of it */
function compare(lines: string[], path: string, before: unknown, after: unknown, hidden: boolean, depth = 0): void {
  if (same(before, after)) return
  // A new entry is named, but its content is not shown.
  if (before === undefined) lines.push(`+ ${path}${depth < 2 ? '' : shown(after, hidden)}`)
  else if (after === undefined) lines.push(`- ${path}`)
  else if (isRecord(before) && isRecord(after)) {
    for (const key of new Set([...Object.keys(after), ...Object.keys(before)]))
      compare(lines, `${path}.${key}`, before[key], after[key], hidden || SECRET.test(key), depth + 1)
  } else lines.push(`~ ${path}${change(before, after, hidden)}`)
}

function change(before: unknown, after: unknown, hidden: boolean): string {
  if (hidden && typeof after !== 'boolean' && typeof after !== 'number') return ''
  const [from, to] = [JSON.stringify(before), JSON.stringify(after)]
  return from.length + to.length > MAX_SHOWN ? '' : `: ${from} → ${to}`
}

function shown(value: unknown, hidden: boolean): string {
  const text = JSON.stringify(value)
  return hidden || text.length > MAX_SHOWN ? '' : `: ${text}`
}

function same(before: unknown, after: unknown): boolean {
  if (!isRecord(before) || !isRecord(after)) return JSON.stringify(before) === JSON.stringify(after)
  const keys = Object.keys(before)
  return keys.length === Object.keys(after).length && keys.every((key) => key in after && same(before[key], after[key]))
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
