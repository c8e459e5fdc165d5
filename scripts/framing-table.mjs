// Asks Tidegate, nginx and HAProxy on this machine the same doubtful requests (test/support/framing-cases.mjs), each on
// a connection of its own with nothing in front, and has a service give them doubtful responses (response-cases.mjs).
// Prints the tables of docs/framing.md; with --write they are put there. Wants `npm run build`, nginx and haproxy. Ends
// with 1 where both of them refuse what Tidegate serves.
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { CLASSES, SERVED } from '../test/support/framing-cases.mjs'
import { freePort } from '../test/support/free-port.mjs'
import { PASSED, REFUSED } from '../test/support/response-cases.mjs'

const CLI = fileURLToPath(new URL('../dist/src/cli/main.js', import.meta.url))
const DOCUMENT = fileURLToPath(new URL('../docs/framing.md', import.meta.url))
const SILENCE_MS = 1500
const AT_ONCE = 16
const RESPONSES = [...PASSED, ...REFUSED]

const folder = mkdtempSync(join(tmpdir(), 'tidegate-framing-'))
const children = []

/**
 * Answers what looks like the end of a request; what a server lets through is what is asked, not how an origin would
 * take it.
 */
async function startOrigin() {
  const server = createServer((socket) => {
    let text = ''
    socket.setEncoding('latin1')
    socket.on('error', () => {})
    socket.on('data', (data) => {
      text += data
      const end = text.indexOf('\r\n\r\n')
      if (end === -1) return
      const length = Number(/\r\ncontent-length: *(\d+)/i.exec(text)?.[1] ?? 0)
      const chunked = /\r\ntransfer-encoding: *chunked/i.test(text.slice(0, end))
      if (chunked ? !/\r\n0\r\n/.test(text.slice(end)) : text.length < end + 4 + length) return
      const number = /^GET \/responses\/(\d+) /.exec(text)?.[1]
      text = ''
      const response = number === undefined ? 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok' : RESPONSES[number].bytes
      socket.write(Buffer.from(response, 'latin1'))
    })
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return server
}

async function listening(port) {
  for (let tries = 0; tries < 200; tries++) {
    const open = await new Promise((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.on('connect', () => resolve(true)).on('error', () => resolve(false))
      socket.on('connect', () => socket.destroy())
    })
    if (open) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error(`nothing listens on ${port}`)
}

function run(command, args, env = {}) {
  children.push(spawn(command, args, { stdio: 'ignore', env: { ...process.env, ...env } }))
}

const servers = {
  async Tidegate(origin) {
    const port = await freePort()
    const config = join(folder, 'tidegate.yaml')
    const endpoints = [`http://127.0.0.1:${origin}`]
    const services = { origin: { endpoints }, undici: { endpoints, client: 'undici' } }
    const routes = [
      { match: { path: '/' }, service: 'origin', auth: 'none' },
      { match: { path: '/undici' }, service: 'undici', auth: 'none', stripPrefix: true },
    ]
    writeFileSync(config, JSON.stringify({ services, routes }))
    run(process.execPath, [CLI, 'start'], {
      TIDEGATE_CONFIG: config,
      TIDEGATE_HOST: '127.0.0.1',
      TIDEGATE_PORT: String(port),
      TIDEGATE_ADMIN_PORT: '0',
      TIDEGATE_STATE: 'none',
      TIDEGATE_ACCESS_LOG: 'off',
    })
    return port
  },
  async nginx(origin) {
    const port = await freePort()
    const own = join(folder, 'nginx')
    mkdirSync(own)
    const temp = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${own}/${name};`)
    const proxy = 'proxy_http_version 1.1; proxy_set_header Connection "";'
    writeFileSync(
      join(own, 'nginx.conf'),
      `daemon off; ${process.getuid() === 0 ? 'user root;' : ''} pid ${own}/pid; error_log ${own}/error.log; worker_processes 1;
      events {}
      http { access_log off; ${temp.join(' ')}
        server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${origin}; ${proxy} } } }`,
    )
    run('nginx', ['-p', own, '-c', join(own, 'nginx.conf'), '-e', join(own, 'error.log')])
    return port
  },
  async HAProxy(origin) {
    const port = await freePort()
    const config = join(folder, 'haproxy.cfg')
    writeFileSync(
      config,
      `defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\nfrontend in\n bind 127.0.0.1:${port}\n default_backend out\nbackend out\n server origin 127.0.0.1:${origin}\n`,
    )
    run('haproxy', ['-db', '-f', config])
    return port
  },
}

/** A status, `closed` without one, or `waits`. */
function ask(port, request) {
  return new Promise((resolve) => {
    let text = ''
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }).setEncoding('latin1')
    const status = () => /^HTTP\/\d\.\d (\d{3})/m.exec(text.replace(/^(?:HTTP\/1\.1 1.*\r\n(?:.+\r\n)*\r\n)+/, ''))?.[1]
    const end = (what) => {
      clearTimeout(silence)
      socket.destroy()
      resolve(what)
    }
    const silence = setTimeout(() => end(status() ?? 'waits'), SILENCE_MS)
    socket.on('data', (data) => {
      text += data
      if (status() !== undefined) end(status())
    })
    socket.on('error', () => {})
    socket.on('close', () => end(status() ?? 'closed'))
    socket.on('connect', () => socket.write(Buffer.from(request, 'latin1')))
  })
}

/** A port may be open before anybody takes what arrives there: the first row would say that its server waits. */
async function answering(port) {
  for (let tries = 0; tries < 10; tries++) if (/^\d/.test(await ask(port, 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'))) return
  throw new Error(`nothing answers on ${port}`)
}

async function askAll(port, requests) {
  const results = []
  const queue = requests.entries()
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const [index, request] of queue) results[index] = await ask(port, request)
    }),
  )
  return results
}

const isServed = (result) => /^[23]/.test(result)

function summary(results) {
  const counts = new Map()
  for (const result of results) {
    const what = isServed(result) ? 'serves' : result
    counts.set(what, (counts.get(what) ?? 0) + 1)
  }
  if (counts.size === 1) return counts.has('serves') ? '**serves**' : [...counts.keys()][0]
  const parts = [...counts].sort(([a], [b]) => (a < b ? -1 : 1))
  return parts.map(([what, count]) => (what === 'serves' ? `**serves ${count}**` : `${what} ×${count}`)).join(', ')
}

const origin = await startOrigin()
const names = Object.keys(servers)
const rows = []
const responseRows = []
const weaker = []
try {
  const ports = {}
  for (const name of names) ports[name] = await servers[name](origin.address().port)
  for (const name of names) await listening(ports[name])
  for (const name of names) await answering(ports[name])
  for (const { name, rfc, requests } of CLASSES) {
    const results = {}
    for (const server of names) results[server] = await askAll(ports[server], requests)
    requests.forEach((request, i) => {
      if (isServed(results.Tidegate[i]) && !isServed(results.nginx[i]) && !isServed(results.HAProxy[i]))
        weaker.push(request)
    })
    rows.push(
      `| ${name} | ${rfc} | ${requests.length} | ${names.map((server) => summary(results[server])).join(' | ')} |`,
    )
  }
  rows.push('', `| must be served | RFC | ${names.join(' | ')} |`, '|---|---|---|---|---|')
  for (const { name, rfc, request } of SERVED) {
    const results = []
    for (const server of names) results.push(...(await askAll(ports[server], [request])))
    rows.push(
      `| ${name} | ${rfc} | ${results.map((result) => (isServed(result) ? 'serves' : `**${result}**`)).join(' | ')} |`,
    )
  }
  for (const [number, { name, rfc }] of RESPONSES.entries()) {
    const request = (prefix) => `GET ${prefix}/responses/${number} HTTP/1.1\r\nHost: a.test\r\n\r\n`
    const results = [await ask(ports.Tidegate, request('')), await ask(ports.Tidegate, request('/undici'))]
    for (const server of names.slice(1)) results.push(await ask(ports[server], request('')))
    const cells = results.map((result) => (isServed(result) ? '**passes**' : result))
    responseRows.push(`| ${name} | ${rfc} | ${cells.join(' | ')} |`)
  }
} finally {
  for (const child of children) child.kill('SIGTERM')
  await Promise.all(children.map((child) => child.exitCode ?? new Promise((resolve) => child.once('exit', resolve))))
  origin.close()
  rmSync(folder, { recursive: true, force: true })
}

const head = `| refused | RFC | forms | ${names.join(' | ')} |\n|---|---|--:|---|---|---|\n`
const table = head + rows.join('\n')
const responseHead = '| response | RFC | Tidegate | `client: undici` | nginx | HAProxy |\n|---|---|---|---|---|---|\n'
const responseTable = responseHead + responseRows.join('\n')
console.log(table, '\n')
console.log(responseTable)
if (process.argv.includes('--write')) {
  const nginx = execFileSync('sh', ['-c', 'nginx -v 2>&1'], { encoding: 'utf8' }).trim().replace(/.*\//, '')
  const haproxy = /version ([\d.]+)/.exec(execFileSync('haproxy', ['-v'], { encoding: 'utf8' }))[1]
  const measured = `nginx ${nginx} and HAProxy ${haproxy}, both as they come, HTTP/1.1 to the service.\n\n${table}`
  const put = (document, name, text) => {
    const [before, rest] = document.split(`<!-- ${name} -->\n`)
    return `${before}<!-- ${name} -->\n\n${text}\n\n${rest.slice(rest.indexOf('<!-- end -->'))}`
  }
  const document = put(readFileSync(DOCUMENT, 'utf8'), 'table', measured)
  writeFileSync(DOCUMENT, put(document, 'responses', responseTable))
}
if (weaker.length > 0) {
  console.error(
    `served here, refused by both:\n${weaker.map((request) => JSON.stringify(request.slice(0, 200))).join('\n')}`,
  )
  process.exitCode = 1
}
