// Checks references about callers: credential kinds that no consumer has, groups without members, and names
// that two consumers could claim. Pure; called by references.ts.
import { type CredentialKind, GROUP } from './credentials.js'
import { hint } from './nearest.js'
import type { CheckedEntries, DefinedNames, Problem } from './problems.js'
import type { Config, RouteConfig } from './schema.js'

/** Reports credential kinds that a route accepts but no consumer has. */
export function credentialProblems(
  route: RouteConfig,
  path: readonly PropertyKey[],
  { consumers, jwt }: CheckedEntries,
  names: DefinedNames,
): Problem[] {
  const has: Record<CredentialKind, (consumer: Config['consumers'][string]) => boolean> = {
    'x-m': ({ secret }) => secret.length > 0,
    'http-signature': ({ httpSignatureKeys }) => Object.keys(httpSignatureKeys).length > 0,
    'api-key': ({ apiKeys }) => apiKeys.length > 0,
    basic: ({ password }) => password !== undefined,
    jwt: (consumer) => Object.keys(consumer.jwt).length > 0,
    'client-certificate': ({ certificate }) => certificate.length > 0,
  }
  const WHAT = {
    'x-m': 'a secret',
    'http-signature': 'httpSignatureKeys',
    'api-key': 'apiKeys',
    basic: 'a password',
    jwt: 'jwt',
    'client-certificate': 'a certificate',
  } as const
  return route.auth.flatMap((kind) => {
    if (kind === 'none') return []
    if (kind === 'jwt') {
      if (names.issuers.length === 0) return [{ path, message: 'jwt needs someone whose tokens count: jwt is empty' }]
      if (jwt !== null && Object.values(jwt).some(({ unlisted }) => unlisted === 'admit')) return []
    }
    if (names.consumers.length === 0) {
      return [{ path, message: `${kind} needs someone who may call: consumers is empty` }]
    }
    if (consumers === null || Object.values(consumers).some(has[kind])) return []
    return [{ path, message: `${kind} needs someone who may call: no consumer has ${WHAT[kind]}` }]
  })
}

/** Reports groups in `allow` that have no possible member. */
export function groupProblems(route: RouteConfig, path: readonly PropertyKey[], config: CheckedEntries): Problem[] {
  return (route.allow ?? []).flatMap((entry, at) => {
    const message = entry.startsWith(GROUP) ? groupProblem(entry.slice(GROUP.length), config) : null
    return message === null ? [] : [{ path: [...path, at], message }]
  })
}

/** Returns null if some consumer can be in the group. */
export function groupProblem(group: string, { consumers, jwt }: CheckedEntries): string | null {
  if (consumers === null || jwt === null) return null
  const issuers = Object.values(jwt)
  if (issuers.some(({ groupsClaim }) => groupsClaim !== undefined)) return null
  const known = [...Object.values(consumers), ...issuers].flatMap(({ groups }) => groups)
  return known.includes(group) ? null : `nobody is in a group "${group}"${hint(group, [...new Set(known)])}`
}

export function consumerProblems({ consumers, jwt }: CheckedEntries, names: DefinedNames): Problem[] {
  const problems: Problem[] = []
  const owners = new Map<string, string>()
  const keyOwners = new Map<string, string>()
  const issuers = Object.entries(jwt ?? {})
  const admitters = issuers.flatMap(([name, { unlisted }]) => (unlisted === 'admit' ? [name] : []))
  for (const name of names.consumers) {
    const path = ['consumers', name]
    if (name.startsWith(GROUP))
      problems.push({ path, message: `a name cannot begin with "${GROUP}", which means a group` })
    const admitting = admitters.find((issuer) => name.startsWith(`${issuer}:`))
    if (admitting !== undefined) {
      problems.push({ path, message: `is a name that tokens of ${admitting} may claim (unlisted: admit)` })
    }
  }
  for (const name of admitters) {
    const path = ['jwt', name, 'unlisted']
    // The prefixes "a" and "a:b" could both name a caller a:b:c.
    const other = admitters.find((issuer) => name.startsWith(`${issuer}:`))
    if (other !== undefined) {
      const message = `cannot be admit here and for ${other}: tokens of either may name a caller ${name}:…; rename one`
      problems.push({ path, message })
    }
    if (`${name}:`.startsWith(GROUP)) {
      problems.push({ path, message: `cannot be admit: its callers would be named ${name}:…, which means a group` })
    }
  }
  for (const [name, { issuer }] of issuers) {
    const first = issuers.find(([, other]) => other.issuer === issuer)?.[0]
    if (first === name) continue
    problems.push({
      path: ['jwt', name, 'issuer'],
      message: `is already that of "${first}": one entry can have several audiences`,
    })
  }
  for (const [name, consumer] of Object.entries(consumers ?? {})) {
    const path = ['consumers', name]
    if (consumer.password !== undefined && name.includes(':')) {
      problems.push({ path: [...path, 'password'], message: 'cannot be used: a user name has no colon (RFC 7617, 2)' })
    }
    for (const id of Object.keys(consumer.httpSignatureKeys)) {
      const owner = keyOwners.get(id)
      keyOwners.set(id, name)
      if (owner === undefined) continue
      problems.push({
        path: [...path, 'httpSignatureKeys', id],
        message: `is already the keyid of a key of "${owner}"`,
      })
    }
    for (const [issuer, claim] of Object.entries(consumer.jwt)) {
      const at = [...path, 'jwt', issuer]
      if (!names.issuers.includes(issuer)) {
        problems.push({ path: at, message: `no issuer is named "${issuer}"${hint(issuer, names.issuers)}` })
      }
      const what = JSON.stringify([issuer, claim])
      const owner = owners.get(what)
      if (owner !== undefined) problems.push({ path: at, message: `is already what "${owner}" is known by` })
      owners.set(what, name)
    }
  }
  return problems
}
