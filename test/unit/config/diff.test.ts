import { expect, it } from 'vitest'
import { parse } from 'yaml'
import { diffConfigs } from '../../../src/config/diff.js'
import { loadConfig } from '../../../src/config/load.js'

const load = (yaml: string) => loadConfig({ text: { origin: 'gw.yaml', yaml }, env: {} }).config

const BEFORE = `
consumers:
  shop: { secret: the-secret-of-shop }
  old: { secret: the-secret-of-old }
services:
  demo: { endpoints: ['http://a:1'], breaker: {} }
  gone: { endpoints: ['http://b:1'] }
limits:
  quota: { by: consumer, rate: 10/s }
routes:
  - { name: first, match: { path: /a.b }, service: demo, auth: none }
  - { match: { path: /x }, service: demo, auth: none, fallback: { status: 503, body: sorry } }
`

it('nothing differs from itself, however it is written', () => {
  expect(diffConfigs(load(BEFORE), load(BEFORE))).toEqual([])
  expect(
    diffConfigs(load(BEFORE), load(JSON.stringify(parse(BEFORE), null, 2).replace('{}', '{ "window": "10s" }'))),
  ).toEqual([])
})

it('says what came, what went and what changed, and shows no secret', () => {
  const after = `
consumers:
  shop: { secret: [the-secret-of-shop, the-next-secret-of-shop], algorithm: sha1 }
  new: { secret: the-secret-of-new }
services:
  demo: { endpoints: ['http://a:1', 'http://c:1'], breaker: { window: 20s }, timeouts: { total: 3s } }
limits:
  quota: { by: consumer, rate: 20/s, headers: true }
routes:
  - { match: { path: /x }, service: demo, auth: none, fallback: { status: 503, body: sorry about that } }
  - { name: first, match: { path: /a.b }, service: demo, auth: x-m }
  - { name: third, match: { path: /third }, service: demo, auth: none }
trustedProxies: [10.0.0.0/8]
`
  expect(diffConfigs(load(BEFORE), load(after))).toEqual([
    '~ consumers.shop.secret',
    '~ consumers.shop.algorithm',
    '+ consumers.new',
    '- consumers.old',
    '~ services.demo.endpoints: ["http://a:1"] → ["http://a:1","http://c:1"]',
    '~ services.demo.timeouts.total: 0 → 3000',
    '~ services.demo.breaker.window: 10000 → 20000',
    '- services.gone',
    '~ limits.quota.rate.quantity: 10 → 20',
    '~ limits.quota.headers: false → true',
    '~ trustedProxies: [] → ["10.0.0.0/8"]',
    '~ routes./x.fallback.bodyBase64: "c29ycnk=" → "c29ycnkgYWJvdXQgdGhhdA=="',
    '~ routes.first.auth: ["none"] → ["x-m"]',
    '+ routes.third',
    '~ routes: their order',
  ])
})

it('a password read again is the same, also after one that was refused; another one is said to have changed, and not shown', () => {
  const yaml = `consumers: { shop: { password: env:PASSWORD } }
services: { s: { endpoints: [http://h:1] } }
routes: [{ match: {}, service: s, auth: basic }]`
  const read = (PASSWORD: string) => loadConfig({ text: { origin: 'gw.yaml', yaml }, env: { PASSWORD } }).config
  const first = read('correct horse')
  expect(diffConfigs(first, read('correct horse'))).toEqual([])
  expect(diffConfigs(first, read('battery staple'))).toEqual(['~ consumers.shop.password'])
  expect(diffConfigs(first, read('correct horse'))).toEqual([])
})

it('an endpoint is the same, however it is written; its weight and zone are part of it', () => {
  const site = (endpoints: string): ReturnType<typeof load> =>
    load(`services: { s: { endpoints: [${endpoints}] } }\nroutes: [{ match: {}, service: s, auth: none }]`)
  expect(diffConfigs(site("'http://a'"), site("{ url: 'http://a', weight: 1 }"))).toEqual([])
  expect(diffConfigs(site("'http://a'"), site("{ url: 'http://a', zone: eu-1a }"))).toEqual([
    '~ services.s.endpoints: ["http://a"] → [{"url":"http://a","weight":1,"zone":"eu-1a"}]',
  ])
})
