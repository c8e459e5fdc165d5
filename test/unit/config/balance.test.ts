import { expect, test } from 'vitest'
import { compile } from '../../../src/config/compile.js'
import { loadConfig } from '../../../src/config/load.js'

function serviceOf(more: string) {
  const yaml = `services: { s: { endpoints: [http://a]${more} } }\nroutes: [{ match: {}, service: s, auth: none }]`
  const { config, settings } = loadConfig({ text: { origin: 'gw.yaml', yaml }, env: { TIDEGATE_STATE: 'none' } })
  // As a worker gets it.
  return compile(JSON.parse(JSON.stringify(config)) as typeof config, settings).services[0]!
}

test.each([
  ['', { kind: 'p2c' }],
  [', balance: ewma', { kind: 'ewma' }],
  [', balance: { hash: path }', { kind: 'hash', part: { kind: 'path' }, bounded: 1.25 }],
  [
    ", balance: { hash: 'header:X-Tenant', bounded: none }",
    { kind: 'hash', part: { kind: 'header', name: 'x-tenant' }, bounded: Number.POSITIVE_INFINITY },
  ],
  [
    ", balance: { hash: 'cookie:Sid', bounded: 2 }",
    { kind: 'hash', part: { kind: 'cookie', name: 'Sid' }, bounded: 2 },
  ],
])('%s', (more, balance) => {
  expect(serviceOf(more).balance).toEqual(balance)
})

test.each([
  ['', 10_000],
  [', slowStart: 0s', 0],
  [', slowStart: 1m', 60_000],
])('slow start: %s', (more, slowStartMs) => {
  expect(serviceOf(more).slowStartMs).toBe(slowStartMs)
})
