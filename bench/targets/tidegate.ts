// tidegate as its users start it: a config file, a few variables, `tidegate start`. `root` is the checkout it is built
// in, so that two revisions can be compared.
import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { get } from 'node:http'
import path from 'node:path'
import { start } from '../processes.js'
import { CONSUMER, SECRET } from '../signature.js'
import type { Place, Profile, Target } from './target.js'

export interface Variant {
  /** Requests in flight per upstream connection; the default of the build when absent. */
  readonly pipelining?: number
}

interface Manifest {
  readonly version: string
  readonly bin: { readonly tidegate: string }
}

export function tidegate(name: string, root: string, variant: Variant = {}): Target {
  const manifest = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8')) as Manifest
  const cli = path.join(root, manifest.bin.tidegate)
  return {
    name,
    jobs: ['bare', 'whole'],
    async available() {
      if (!existsSync(path.join(root, 'dist/src'))) return { missing: 'a build of tidegate', install: 'npm run build' }
      if (variant.pipelining !== undefined && !understandsPipelining(cli)) {
        return { missing: 'pipelining in this build', install: 'nothing to install: a later revision has it' }
      }
      return { version: manifest.version }
    },
    async start(profile, place) {
      mkdirSync(place.directory, { recursive: true })
      const config = path.join(place.directory, 'tidegate.yaml')
      const accessLog = profile.job === 'whole' ? path.join(place.directory, 'access.log') : null
      writeFileSync(config, yaml(profile, place, variant))
      const env = {
        ...environment(),
        TIDEGATE_CONFIG: config,
        TIDEGATE_HOST: '127.0.0.1',
        TIDEGATE_PORT: String(place.port),
        TIDEGATE_ADMIN_PORT: String(place.adminPort),
        TIDEGATE_WORKERS: String(profile.workers),
        TIDEGATE_STATE: 'none',
        TIDEGATE_LOG_LEVEL: 'warn',
        TIDEGATE_ACCESS_LOG: accessLog ?? 'off',
        ...(profile.offloadBytes === undefined ? {} : { TIDEGATE_HMAC_OFFLOAD_BYTES: String(profile.offloadBytes) }),
      }
      return {
        process: start(process.execPath, [cli, 'start'], profile.cpus, { env, cwd: root }),
        accessLog,
        ready: () => answers200(place.adminPort, '/readyz'),
      }
    },
  }
}

function yaml(profile: Profile, place: Place, variant: Variant): string {
  const service = [
    `    endpoints: [http://127.0.0.1:${place.originPort}]`,
    ...(variant.pipelining === undefined ? [] : [`    pipelining: ${variant.pipelining}`]),
  ]
  if (profile.job === 'bare') {
    return `services:\n  origin:\n${service.join('\n')}\nroutes:\n  - match: { path: / }\n    service: origin\n    auth: none\n`
  }
  return `consumers:
  ${CONSUMER}: { secret: ${SECRET} }
services:
  origin:
${service.join('\n')}
    breaker: { window: 10s, minRequests: 20, failureRatio: 0.5, slowCall: 2s, slowRatio: 0.8, openFor: 5s, probes: 3 }
routes:
  - match: { path: /limited }
    service: origin
    auth: x-m
    limits: [{ by: consumer, rate: 10/s, burst: 10 }]
  - match: { path: / }
    service: origin
    auth: x-m
    limits: [{ by: consumer, rate: 1000000/s, burst: 100000 }]
`
}

/** Without what the user has set for another tidegate. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('TIDEGATE_')))
}

/** The option is in the schema of the builds that have it. */
function understandsPipelining(cli: string): boolean {
  const { stdout } = spawnSync(process.execPath, [cli, 'schema'], { encoding: 'utf8' })
  return stdout.includes('"pipelining"')
}

function answers200(port: number, target: string): Promise<boolean> {
  return new Promise((resolve) => {
    const request = get({ host: '127.0.0.1', port, path: target, agent: false }, (response) => {
      response.resume()
      resolve(response.statusCode === 200)
    })
    request.once('error', () => resolve(false))
  })
}
