// The documents of the project and the blocks in them, for the tests that hold them to what they say.
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')

export const DOCUMENTS = [
  'README.md',
  'ARCHITECTURE.md',
  'CHANGELOG.md',
  'CONTRIBUTING.md',
  'SECURITY.md',
  'bench/README.md',
  ...readdirSync(path.join(root, 'docs')).map((name) => `docs/${name}`),
]

export interface Fence {
  readonly language: string
  readonly text: string
  /** Of the document, from 1: where the block begins. */
  readonly line: number
}

export function fences(document: string): Fence[] {
  const whole = readFileSync(path.join(root, document), 'utf8')
  return [...whole.matchAll(/^```(\w*)\n([\s\S]*?)^```$/gm)].map(({ 1: language, 2: text, index }) => ({
    language: language as string,
    text: text as string,
    line: whole.slice(0, index).split('\n').length,
  }))
}

/** Of the gateway, and whole; anything else in YAML says that it is not checked. */
export function isConfiguration({ language, text }: Fence): boolean {
  return language === 'yaml' && !text.startsWith('# Not checked')
}

/** A value for each env:NAME that a text names; that of TEST_SECRET is the demo's, with which the documents sign. */
export function withEnvironment(text: string): Record<string, string> {
  const value = (name: string): string =>
    name === 'TEST_SECRET' ? 'demo-secret-of-test' : 'a secret of thirty-two bytes or more'
  return Object.fromEntries([...text.matchAll(/env:(\w+)/g)].map(([, name]) => [name, value(name as string)]))
}
