// Writes the reference in docs/configuration.md: the options from the JSON Schema of the configuration file, the
// settings from their table in src/config/settings.ts. `npm run build && node scripts/reference.mjs` puts both between
// the page's markers; test/unit/docs.test.ts imports withReference and fails when the page is stale.
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'

/** The page with both tables made anew. */
export function withReference(page, schema, settingsRows) {
  const sections = sectionsOf(schema)
  // What has nothing of its own is told by the section that has it all; rows lead there.
  const named = sections.filter((section) => section.rows.length > 0)
  const options = named.map((section) => sectionText(section, sections)).join('\n\n')
  const settings = ['| variable | default | meaning |', '|---|---|---|', ...settingsRows].join('\n')
  return between(between(page, 'options', options), 'settings', settings)
}

function between(page, marker, text) {
  const start = `<!-- ${marker} -->`
  const from = page.indexOf(start)
  const to = page.indexOf('<!-- end -->', from)
  if (from === -1 || to === -1) throw new Error(`docs/configuration.md has no ${start} … <!-- end -->`)
  return `${page.slice(0, from + start.length)}\n\n${text}\n\n${page.slice(to)}`
}

const FILE = 'The file'

/**
 * The objects of the schema: the whole file first, each before those within it. `known` is an earlier one whose options
 * this one has too; `rows` are the options that only this one has.
 */
function sectionsOf(schema) {
  const sections = []
  const visit = (title, object) => {
    const known = sections.slice(1).find((section) => includes(object, section.object))
    const rows = Object.keys(object.properties).filter((key) => known?.object.properties[key] === undefined)
    sections.push({ title, object, known: known?.title, rows })
    for (const key of rows) {
      const at = title === FILE ? key : `${title}.${key}`
      for (const [place, inner] of objectsWithin(at, object.properties[key])) visit(place, inner)
    }
  }
  visit(FILE, schema)
  return sections
}

/** The objects that an option holds, alone, in a map, in a list or as an alternative, by their place in the file. */
function objectsWithin(at, { properties, additionalProperties, items, anyOf = [], ...rest }) {
  if (properties !== undefined) return [[at, { properties, ...rest }]]
  return [
    ...(additionalProperties ? objectsWithin(`${at}.NAME`, additionalProperties) : []),
    ...(items ? objectsWithin(`${at}[]`, items) : []),
    ...anyOf.flatMap((one) => objectsWithin(at, one)),
  ]
}

function sectionText({ title, object, known, rows }, sections) {
  const lines = rows.map((key) => row(title, key, object, sections))
  // The row of an option says what its section is about; entries of maps and lists have no such row.
  const about = /(\.NAME|\[\])$/.test(title) && object.description !== undefined ? [cell(object.description)] : []
  return [
    `### ${title}`,
    ...about,
    ...(known === undefined
      ? []
      : [`The options of ${link(sections.find((section) => section.title === known))}, and:`]),
    ['| option | values | default | meaning |', '|---|---|---|---|', ...lines].join('\n'),
  ].join('\n\n')
}

function includes(object, other) {
  return Object.entries(other.properties).every(([key, option]) => isDeepStrictEqual(object.properties[key], option))
}

function row(section, key, object, sections) {
  const option = object.properties[key]
  const text = option.description ?? ''
  // Where the schema has no default of its own, the description has a sentence with it.
  const [, before, said, after = ''] = /^(.*?) ?Default:? (.+?)\.( .+)?$/s.exec(text) ?? [undefined, text]
  const meaning = `${before}${after}`.trim()
  const given = option.default === undefined || isDeepStrictEqual(option.default, {}) ? said : option.default
  const at = section === FILE ? key : `${section}.${key}`
  const column = object.required?.includes(key) ? '**required**' : given === undefined ? '' : shown(given)
  return `| \`${key}\` | ${cell(valuesOf(at, option, sections))} | ${cell(column)} | ${cell(meaning)} |`
}

/** What may stand there, in words. */
function valuesOf(at, option, sections) {
  if (option['x-values'] !== undefined) return option['x-values']
  if (option.properties !== undefined) return link(sections.find(({ title }) => title === at))
  if (option.enum !== undefined) return [...new Set(option.enum.map(String))].map(code).join(', ')
  if (option.anyOf !== undefined) return alternatives(at, option.anyOf, sections)
  if (option.type === 'array') return `list: ${valuesOf(`${at}[]`, option.items, sections)}`
  if (option.type === 'object') return `by name: ${valuesOf(`${at}.NAME`, option.additionalProperties, sections)}`
  if (option.type === 'boolean') return '`true`, `false`'
  if (option.type === 'string') return 'text'
  const { exclusiveMinimum, minimum, maximum } = option
  return exclusiveMinimum === undefined ? `${minimum} to ${maximum}` : `above ${exclusiveMinimum}, up to ${maximum}`
}

function alternatives(at, options, sections) {
  const [first, second] = options
  const words = options.map((option) => valuesOf(at, option, sections))
  if (second?.type === 'array' && isDeepStrictEqual(second.items, first)) return `${words[0]}; one or a list`
  return words.join('; or ')
}

const code = (text) => `\`${text}\``

/** A default: a value of the file as code, a sentence as it is. */
function shown(value) {
  if (typeof value === 'object') return code(JSON.stringify(value).replaceAll(',', ', '))
  return value === 'any' || value === 'all' || /[^\w./:-]/.test(value) ? value : code(value)
}

/** A link to a section, with the anchor that GitHub makes of its heading. */
function link({ title, known, rows }) {
  const target = rows.length === 0 ? known : title
  return `[${target}](#${target
    .toLowerCase()
    .replace(/[^\p{L}\p{N} -]/gu, '')
    .replaceAll(' ', '-')})`
}

/** A text within a table: no line ends, no column of its own, no tag. */
function cell(text) {
  return text.replaceAll('|', '\\|').replaceAll('<', '&lt;').replace(/\s+/g, ' ')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { jsonSchema } = await import('../dist/src/config/schema.js')
  const { settingsRows } = await import('../dist/src/config/settings.js')
  const document = new URL('../docs/configuration.md', import.meta.url)
  writeFileSync(document, withReference(readFileSync(document, 'utf8'), jsonSchema(), settingsRows()))
}
