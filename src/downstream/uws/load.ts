// The only place that loads uWebSockets.js. Two builds of it are installed under aliases, each an optional dependency:
// the newer wants Node >= 22 and glibc >= 2.38, the older runs from Node 20 and glibc 2.27. The newest that loads here
// is used.

import type * as Uws from 'uWebSockets.js'
import { createRequire } from 'node:module'

declare module 'uWebSockets.js' {
  interface TemplatedApp {
    /**
     * Takes over a connected socket, as if accepted by the app's own listener. Exists in both builds, missing in their
     * types.
     */
    adoptSocket(fd: number): TemplatedApp
    /** The app's address, in the bits of a double. In both builds as well. */
    getDescriptor(): number
  }
  interface HttpResponse {
    /** From 20.60 on, and broken in 20.69 (downstream.ts): a sign of what runs here. */
    beginWrite?(): HttpResponse
  }
}

const require = createRequire(import.meta.url)

function load(): { uWS: typeof Uws; version: string } {
  const problems: string[] = []
  for (const name of ['uWebSockets.js-next', 'uWebSockets.js']) {
    try {
      const version = binaryVersion(name)
      return { uWS: require(name) as typeof Uws, version }
    } catch (error) {
      problems.push(`${name}: ${(error as Error).message.split('\n')[0]}`)
    }
  }
  throw new Error(`uWebSockets.js does not load on Node ${process.versions.node}: ${problems.join('; ')}`)
}

/**
 * Each build is a package of JavaScript that looks for another with the binary. Where its own was not installed (npm
 * skips those whose Node does not fit) it finds the other build's: then it is the other one that is to be loaded.
 */
function binaryVersion(name: string): string {
  const entry = require.resolve(name)
  const { version } = require(`${entry.slice(0, entry.lastIndexOf('/') + 1)}package.json`) as { version: string }
  const binary = `@uwsjs/${process.platform}-${process.arch}-${process.versions.node.split('.')[0]}/package.json`
  const found = (createRequire(entry)(binary) as { version: string }).version
  if (found !== version) throw new Error(`no binary of ${version} for Node ${process.versions.node}`)
  return version
}

export const { uWS, version: uwsVersion } = load()
