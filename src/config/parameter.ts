// One parameter of a query: its values, the query without it, the query with it hidden. Pure; runs per request, but only where API keys may
// come in the query. Names are compared as a service would read them, so that no spelling escapes.

/** The first value; '' where there is none, null where there are several. */
export function soleValue(query: string, name: string): string | null {
  let value = ''
  let found = 0
  for (const part of query.split('&')) {
    if (nameOf(part) !== name) continue
    found++
    value = decoded(part.slice(part.indexOf('=') + 1 || part.length))
  }
  return found > 1 ? null : value
}

export function withoutParameter(query: string, name: string): string {
  return query
    .split('&')
    .filter((part) => nameOf(part) !== name)
    .join('&')
}

export function hidden(query: string, name: string): string {
  return query
    .split('&')
    .map((part) => (nameOf(part) === name ? `${name}=***` : part))
    .join('&')
}

function nameOf(part: string): string {
  const end = part.indexOf('=')
  return decoded(end < 0 ? part : part.slice(0, end))
}

/** What has no right escapes is taken as it stands. */
function decoded(text: string): string {
  if (!/[%+]/.test(text)) return text
  try {
    return decodeURIComponent(text.replaceAll('+', ' '))
  } catch {
    return text
  }
}
