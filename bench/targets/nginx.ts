// nginx twice: forwarding alone, and with Lua doing the whole job. What each does is in nginx.conf and nginx-lua.conf.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { accepts, output, start } from '../processes.js'
import { CONSUMER, SECRET } from '../signature.js'
import type { Place, Profile, Started, Target } from './target.js'

const TEMPLATES = fileURLToPath(new URL('../../../bench/targets/', import.meta.url))
const MODULE_FOLDERS = ['/usr/lib/nginx/modules', '/usr/lib64/nginx/modules', '/usr/local/lib/nginx/modules']
const MODULES = ['ndk_http_module.so', 'ngx_http_lua_module.so']

async function version(): Promise<string | null> {
  return /nginx\/(\S+)/.exec((await output('nginx', ['-v'])) ?? '')?.[1] ?? null
}

export const nginx: Target = {
  name: 'nginx',
  jobs: ['bare'],
  async available() {
    const found = await version()
    return found === null ? { missing: 'nginx', install: 'apt-get install nginx-light' } : { version: found }
  },
  start: async (profile, place) => launch('nginx.conf', profile, place, null),
}

export const nginxLua: Target = {
  name: 'nginx+lua',
  jobs: ['whole'],
  async available() {
    const found = await version()
    if (found === null || moduleFolder() === undefined) {
      return { missing: 'nginx with its Lua module', install: 'apt-get install nginx-light libnginx-mod-http-lua' }
    }
    return { version: found }
  },
  start: async (profile, place) => launch('nginx-lua.conf', profile, place, path.join(place.directory, 'access.log')),
}

function moduleFolder(): string | undefined {
  return MODULE_FOLDERS.find((folder) => MODULES.every((file) => existsSync(path.join(folder, file))))
}

function launch(template: string, profile: Profile, place: Place, accessLog: string | null): Started {
  const folder = moduleFolder()
  const values: Record<string, string> = {
    WORKERS: String(profile.workers),
    PORT: String(place.port),
    ORIGIN_PORT: String(place.originPort),
    // Started by root, workers would become `nobody`, who may not enter this folder.
    USER: process.getuid?.() === 0 ? 'user root;' : '',
    LOAD_MODULES: MODULES.map((file) => `load_module ${folder}/${file};`).join('\n'),
    ACCESS_LOG: accessLog ?? 'off',
    CONSUMER,
    SECRET,
  }
  mkdirSync(place.directory, { recursive: true })
  const text = readFileSync(path.join(TEMPLATES, template), 'utf8').replace(
    /\$\{([A-Z_]+)\}/g,
    (_, name: string) => values[name]!,
  )
  const file = path.join(place.directory, 'nginx.conf')
  writeFileSync(file, text)
  return {
    process: start('nginx', ['-p', place.directory, '-e', 'stderr', '-c', file], profile.cpus),
    accessLog,
    ready: () => accepts(place.port),
  }
}
