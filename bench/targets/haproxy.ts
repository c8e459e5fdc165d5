// HAProxy forwarding alone (haproxy.cfg).
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { accepts, output, start } from '../processes.js'
import type { Target } from './target.js'

const TEMPLATE = fileURLToPath(new URL('../../../bench/targets/haproxy.cfg', import.meta.url))

export const haproxy: Target = {
  name: 'haproxy',
  jobs: ['bare'],
  async available() {
    const version = /version (\S+)/.exec((await output('haproxy', ['-v'])) ?? '')?.[1]
    return version === undefined ? { missing: 'haproxy', install: 'apt-get install haproxy' } : { version }
  },
  async start(profile, place) {
    const values: Record<string, number> = { WORKERS: profile.workers, PORT: place.port, ORIGIN_PORT: place.originPort }
    const text = readFileSync(TEMPLATE, 'utf8').replace(/\$\{([A-Z_]+)\}/g, (_, name: string) => String(values[name]))
    const file = path.join(place.directory, 'haproxy.cfg')
    mkdirSync(place.directory, { recursive: true })
    writeFileSync(file, text)
    return {
      process: start('haproxy', ['-db', '-f', file], profile.cpus),
      accessLog: null,
      ready: () => accepts(place.port),
    }
  },
}
