// Fetches the secrets that the configuration points to (env:NAME, file:PATH) and keeps them as kept.ts says. Runs at
// start only. No message shows a value.
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { keepSignatureKey, keepSignatureSecret } from './http-signature.js'
import { type Kept, keepApiKey, keepPassword, keepPublicKeys, keepSharedSecret } from './kept.js'
import type { Problem } from './problems.js'
import type { Config } from './schema.js'
import type { Environment } from './settings.js'

type Issuer = Config['jwt'][string]

/** Resolves `env:NAME`, `file:PATH` or a literal secret. */
export function readSecret(
  text: string,
  env: Environment,
  directory: string,
): { secret: string } | { problem: string } {
  let secret = text
  let source = 'the secret'
  if (text.startsWith('env:')) {
    const name = text.slice(4)
    source = `the environment variable ${name}`
    const value = env[name]
    if (value === undefined) return { problem: `${source} is not set` }
    secret = value
  } else if (text.startsWith('file:')) {
    const file = text.slice(5)
    source = `the file ${file}`
    try {
      secret = readFileSync(path.resolve(directory, file), 'utf8').replace(/\r?\n$/, '')
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      return { problem: code === 'ENOENT' ? `${source} does not exist` : `${source} cannot be read (${code})` }
    }
  }
  return secret === '' ? { problem: `${source} is empty` } : { secret }
}

/** @param directory the base of relative file: paths */
export function resolveSecrets(config: Config, env: Environment, directory: string, problems: Problem[]): Config {
  const read = (text: string, at: Problem['path']): string => {
    const resolved = readSecret(text, env, directory)
    if ('problem' in resolved) problems.push({ path: at, message: resolved.problem })
    return 'problem' in resolved ? '' : resolved.secret
  }
  const keep = <T>(text: string, at: Problem['path'], make: (text: string) => Kept<T>, none: T): T => {
    const found = read(text, at)
    if (found === '') return none
    const made = make(found)
    if ('problem' in made) problems.push({ path: at, message: made.problem })
    return 'problem' in made ? none : made.kept
  }

  /** Two consumers with the same key could not be told apart. */
  const owners = new Map<string, string>()
  const keepKeyOf = (name: string, text: string): Kept<string> => {
    const made = keepApiKey(text)
    if ('problem' in made) return made
    const owner = owners.get(made.kept)
    owners.set(made.kept, name)
    return owner === undefined ? made : { problem: `is a key that "${owner}" has already` }
  }

  const consumers = mapValues(config.consumers, (consumer, name) => {
    const at = (...rest: PropertyKey[]) => ['consumers', name, ...rest]
    const { password } = consumer
    return {
      ...consumer,
      secret: consumer.secret.map((text, index) =>
        keep(text, at('secret', index), (found) => keepSharedSecret(found), ''),
      ),
      apiKeys: consumer.apiKeys.map((text, index) =>
        keep(text, at('apiKeys', index), (key) => keepKeyOf(name, key), ''),
      ),
      httpSignatureKeys: mapValues(consumer.httpSignatureKeys, (key, id) => ({
        ...key,
        // `material` keeps both in their final form.
        secret: undefined,
        publicKey: undefined,
        material:
          key.secret === undefined
            ? keep(
                key.publicKey ?? '',
                at('httpSignatureKeys', id, 'publicKey'),
                (pem) => keepSignatureKey(pem, key.algorithm),
                '',
              )
            : keep(
                key.secret,
                at('httpSignatureKeys', id, 'secret'),
                (text) => keepSignatureSecret(text, key.encoding),
                '',
              ),
      })),
      ...(password === undefined
        ? {}
        : { password: keep(password, at('password'), (text) => keepPassword(name, text), '') }),
    }
  })
  const jwt = mapValues(config.jwt, (issuer, name) => {
    const at = (...rest: PropertyKey[]) => ['jwt', name, ...rest]
    const secrets = issuer.secrets?.map((text, index) => {
      const path = at('secrets', index)
      return keep(text, path, (found) => keepHmacSecret(found, issuer), '')
    })
    const keys = issuer.publicKeys?.flatMap((text, index) => keep(text, at('publicKeys', index), keepPublicKeys, []))
    // `keys` keeps publicKeys in their final form.
    const { publicKeys: _, ...rest } = issuer
    return { ...rest, ...(secrets === undefined ? {} : { secrets }), keys: keys ?? [] }
  })
  return { ...config, consumers, jwt }
}

/** RFC 7518, 3.2: a key at least as long as the hash. Whoever guesses it can issue tokens. */
function keepHmacSecret(secret: string, { algorithms }: Issuer): Kept<string> {
  const least = Math.max(...algorithms.map((algorithm) => Number(algorithm.slice(2)) / 8))
  return Buffer.byteLength(secret) < least
    ? { problem: `is too short for ${algorithms.join(', ')}: ${least} bytes at least (RFC 7518, 3.2)` }
    : { kept: secret }
}

function mapValues<T, U>(record: Readonly<Record<string, T>>, map: (value: T, name: string) => U): Record<string, U> {
  return Object.fromEntries(Object.entries(record).map(([name, value]) => [name, map(value, name)]))
}
