// The proxies one would reach for in Node. Dependencies of bench/ alone, so their servers are plain modules beside that
// node_modules.
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { accepts, start } from '../processes.js'
import type { Target } from './target.js'

const FOLDER = new URL('../../../bench/', import.meta.url)
const resolve = createRequire(new URL('package.json', FOLDER))

function nodeProxy(name: string, packageName: string): Target {
  return {
    name,
    jobs: ['bare'],
    async available() {
      try {
        const manifest = resolve
          .resolve(packageName)
          .replace(/(node_modules\/(?:@[^/]+\/)?[^/]+)\/.*/, '$1/package.json')
        return { version: (resolve(manifest) as { version: string }).version }
      } catch {
        return { missing: packageName, install: 'npm install --prefix bench' }
      }
    },
    async start(profile, place) {
      const file = fileURLToPath(new URL(`targets/${name}.mjs`, FOLDER))
      return {
        process: start(process.execPath, [file, String(place.port), String(place.originPort)], profile.cpus),
        accessLog: null,
        ready: () => accepts(place.port),
      }
    },
  }
}

export const fastifyHttpProxy = nodeProxy('fastify-http-proxy', '@fastify/http-proxy')
export const httpxy = nodeProxy('httpxy', 'httpxy')
