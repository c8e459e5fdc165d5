// What the checks of the configuration hand each other: the problems they find, and the entries they look at. Data
// only; load.ts turns a problem into a message with file, line and column.
import type { Config, RouteConfig } from './schema.js'

/** What is wrong with one key. */
export interface Problem {
  /** Of the key, from the top of the file. */
  readonly path: readonly PropertyKey[]
  readonly message: string
}

/** The names of all entries, also of those that the schema refused: nobody is told that such a name does not exist. */
export interface DefinedNames {
  readonly consumers: readonly string[]
  readonly issuers: readonly string[]
  readonly services: readonly string[]
  readonly limits: readonly string[]
}

/** The entries that the schema accepted. `routes` is undefined where it refused one. */
export type CheckedEntries = Pick<Config, 'services' | 'limits'> & {
  /** Null where the schema refused something anywhere in the file: a consumer may then have any credentials. */
  readonly consumers: Config['consumers'] | null
  readonly jwt: Config['jwt'] | null
  readonly routes: readonly (RouteConfig | undefined)[]
}
