// One parameter of a query: its values, the query without it, the query with it hidden. Pure; runs per request, but
// only where API keys may come in the query. Names are compared as a service would read them, so that no spelling
// escapes.

/** The first value; '' where there is none, null where there are several. */
export function soleValue(query: string, name: string): string | null {
  let value: string | null = null
  for (const part of query.split('&')) {
    const end = nameEnd(part)
    if (!spells(part, end, name)) continue
    if (value !== null) return null
    value = decoded(part.slice(end + 1))
  }
  return value ?? ''
}

export function withoutParameter(query: string, name: string): string {
  return query
    .split('&')
    .filter((part) => !spells(part, nameEnd(part), name))
    .join('&')
}

export function hidden(query: string, name: string): string {
  return query
    .split('&')
    .map((part) => (spells(part, nameEnd(part), name) ? `${name}=***` : part))
    .join('&')
}

function nameEnd(part: string): number {
  const end = part.indexOf('=')
  return end < 0 ? part.length : end
}

/**
 * Whether part[0, end) decodes to the name, which has unreserved characters alone (schema/callers.ts). Not by
 * decodeURIComponent: it throws for each wrong escape, and a client may send thousands.
 */
function spells(part: string, end: number, name: string): boolean {
  let at = 0
  for (let i = 0; i < name.length; i++) {
    let code = part.charCodeAt(at)
    if (code === PERCENT) {
      const digits = part.substring(at + 1, at + 3)
      if (!/^[0-9a-fA-F]{2}$/.test(digits)) return false
      code = Number.parseInt(digits, 16)
      at += 2
    }
    if (at >= end || code !== name.charCodeAt(i)) return false
    at++
  }
  return at === end
}

const PERCENT = 0x25

/** What has no right escapes is taken as it stands. */
function decoded(text: string): string {
  if (!/[%+]/.test(text)) return text
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}
