import { expect, test } from 'vitest'
import { jsonSchema } from '../../../src/config/schema.js'

interface JsonSchema {
  properties?: Record<string, JsonSchema>
  additionalProperties?: JsonSchema | false
  items?: JsonSchema
  anyOf?: JsonSchema[]
  description?: string
}

/** Schemas of what a map, a list or an alternative holds. */
function within({ additionalProperties, items, anyOf = [] }: JsonSchema): JsonSchema[] {
  return [additionalProperties, items, ...anyOf].filter((inner) => inner !== undefined && inner !== false)
}

function* optionsOf(schema: JsonSchema, path: string): Generator<[path: string, schema: JsonSchema]> {
  for (const [key, property] of Object.entries(schema.properties ?? {})) {
    yield [`${path}.${key}`, property]
    yield* optionsOf(property, `${path}.${key}`)
  }
  for (const inner of within(schema)) yield* optionsOf(inner, path)
}

function* objectsOf(schema: JsonSchema): Generator<JsonSchema> {
  if (schema.properties !== undefined) yield schema
  for (const inner of [...Object.values(schema.properties ?? {}), ...within(schema)]) yield* objectsOf(inner)
}

test('every option of the JSON Schema says what it means, and no object takes keys it does not know', () => {
  const schema = jsonSchema() as JsonSchema
  const options = [...optionsOf(schema, '')]
  expect(options.length).toBeGreaterThan(40)
  expect(options.filter(([, option]) => option.description === undefined).map(([path]) => path)).toEqual([])
  expect([...objectsOf(schema)].every((object) => object.additionalProperties === false)).toBe(true)
})
