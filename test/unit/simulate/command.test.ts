// What the arguments of `tidegate simulate` may be.
import { describe, expect, it } from 'vitest'
import { simulate } from '../../../src/cli/simulate/simulate.js'
import { cleanEnvironment, writeConfig } from '../../support/gateway.js'

const config = writeConfig({
  services: { demo: { endpoints: ['http://127.0.0.1:9000'] } },
  routes: [{ match: { path: '/' }, service: 'demo', auth: 'none' }],
})

describe('refused', () => {
  it.each([
    [[], {}, 'name a configuration and an access log'],
    [[config], {}, 'name an access log as well'],
    [[config, '/no/such.log'], {}, '/no/such.log: no such file'],
    [[config, '/'], {}, '/: is a directory'],
    [['/no/such.yaml', '-'], {}, '/no/such.yaml: no such file'],
    [[config, 'a.log', 'a.log'], {}, 'a.log: this log is named twice'],
    [['a.log'], { compare: [config] }, '--compare takes two configurations'],
    [[], { compare: [config, config] }, 'name an access log as well'],
    [[config, 'a.log'], { compare: [config, config] }, 'with --compare OLD NEW, name access logs'],
    [[config, '/dev/null'], {}, '/dev/null: has no access lines'],
  ])('%j %j', async (names, options, problem) => {
    await expect(simulate(names, options, (text) => text, cleanEnvironment())).rejects.toThrow(problem)
  })
})
