// Turns zod's issues into this project's messages: they say what is expected, never the value found (it may be a
// secret), and for an unknown key the nearest known one, or where it belongs. Pure; runs at start only.
import { z } from 'zod'
import { hint, nearest } from './nearest.js'
import type { Problem } from './problems.js'
import { configSchema } from './schema.js'

type Issue = z.core.$ZodIssue

/** @param input the parsed value: it distinguishes a missing key from one of the wrong type */
export function schemaProblems(error: z.core.$ZodError, input: unknown): Problem[] {
  return error.issues.flatMap((issue) => problemsOf(issue, [], input))
}

function problemsOf(issue: Issue, parent: readonly PropertyKey[], input: unknown): Problem[] {
  const path = [...parent, ...issue.path]
  const one = (message: string): Problem[] => [{ path, message }]
  switch (issue.code) {
    case 'unrecognized_keys':
      return issue.keys.map((key) => ({
        path: [...path, key],
        message: `unknown key${unknownHint(key, path, input)}`,
      }))
    case 'invalid_type':
      return valueAt(input, path) === undefined
        ? one(`is missing (${article(issue.expected)})`)
        : one(issue.message.startsWith('Invalid input') ? `must be ${article(issue.expected)}` : issue.message)
    case 'invalid_value':
      return valueAt(input, path) === undefined
        ? one(`is missing (${alternatives(issue.values)})`)
        : one(issue.message.startsWith('Invalid') ? `must be ${alternatives(issue.values)}` : issue.message)
    case 'invalid_key':
      return issue.issues.map((inner) => ({ path, message: inner.message }))
    case 'invalid_union': {
      // The alternatives differ in type: the one that matches the given type says what is wrong.
      const isNested = typeof valueAt(input, path) === 'object'
      const fitting = issue.errors.filter(
        (errors) =>
          !errors.some(
            ({ code, path }) =>
              path.length === 0 && (code === 'invalid_type' || (code === 'invalid_value' && isNested)),
          ),
      )
      const [only] = fitting
      if (only !== undefined) return only.flatMap((inner) => problemsOf(inner, path, input))
      const expected = issue.errors.flatMap((errors) =>
        errors.flatMap((inner) =>
          inner.code === 'invalid_type' && inner.path.length === 0 ? [article(inner.expected)] : [],
        ),
      )
      if (valueAt(input, path) !== undefined && !issue.message.startsWith('Invalid input')) return one(issue.message)
      return one(valueAt(input, path) === undefined ? 'is missing' : `must be ${[...new Set(expected)].join(' or ')}`)
    }
    case 'too_small':
      return one(
        issue.origin === 'number' || issue.origin === 'int'
          ? `must be ${issue.inclusive ? 'at least' : 'more than'} ${issue.minimum}`
          : issue.origin === 'string'
            ? 'must not be empty'
            : `must have at least ${issue.minimum} ${Number(issue.minimum) === 1 ? 'entry' : 'entries'}`,
      )
    case 'too_big':
      return one(`must be at most ${issue.maximum}`)
    default:
      return one(issue.message)
  }
}

const ARTICLES: Record<string, string> = {
  array: 'a list',
  object: 'keys and values',
  record: 'keys and values',
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
}

function article(type: string): string {
  return ARTICLES[type] ?? type
}

function alternatives(given: readonly unknown[]): string {
  // YAML reads 1.2 as a number; it means the same as '1.2'.
  const values = [...new Set(given.map(String))]
  return values.length === 1 ? String(values[0]) : `${values.slice(0, -1).join(', ')} or ${values.at(-1)}`
}

function valueAt(input: unknown, path: readonly PropertyKey[]): unknown {
  let value = input
  for (const part of path) value = (value as Record<PropertyKey, unknown> | null | undefined)?.[part]
  return value
}

/** Names the nearest key that is not given yet; or, for a key of the level above or below, the place it belongs in. */
function unknownHint(key: string, path: readonly PropertyKey[], input: unknown): string {
  const known = keysAt(path)
  const given = Object.keys(Object(valueAt(input, path)))
  const free = known.filter((name) => !given.includes(name))
  if (nearest(key, free) === null) {
    const below = known.filter((name) => keysAt([...path, name]).includes(key))
    if (below.length > 0) return `; it belongs in ${[...new Set(below)].join(' or ')}`
    if (path.length > 1 && keysAt(path.slice(0, -1)).includes(key)) return `; it belongs next to ${String(path.at(-1))}`
  }
  return hint(key, free)
}

/** The keys that the schema allows at a path. */
function keysAt(path: readonly PropertyKey[]): string[] {
  let candidates: z.core.$ZodType[] = [configSchema]
  for (const part of path) candidates = candidates.flatMap(unwrap).flatMap((schema) => child(schema, part))
  return candidates
    .flatMap(unwrap)
    .flatMap((schema) => (schema instanceof z.ZodObject ? Object.keys(schema.shape) : []))
}

function unwrap(schema: z.core.$ZodType): z.core.$ZodType[] {
  if (schema instanceof z.ZodOptional || schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault) {
    return unwrap(schema.def.innerType)
  }
  if (schema instanceof z.ZodLazy) return unwrap(schema.unwrap())
  if (schema instanceof z.ZodPipe) return unwrap(schema.def.in)
  if (schema instanceof z.ZodUnion) return schema.options.flatMap(unwrap)
  return [schema]
}

function child(schema: z.core.$ZodType, part: PropertyKey): z.core.$ZodType[] {
  if (schema instanceof z.ZodObject) return schema.shape[String(part)] === undefined ? [] : [schema.shape[String(part)]]
  if (schema instanceof z.ZodArray) return [schema.def.element]
  if (schema instanceof z.ZodRecord) return [schema.def.valueType]
  return []
}
