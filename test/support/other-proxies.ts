// nginx and HAProxy in front of the gateway, and CGI servers behind it, as people have them, in the foreground of a
// folder of their own.
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { freePort } from './free-port.mjs'
import { temporaryFolder } from './gateway.js'
import { Connection } from './raw-client.js'
import { eventually } from './waiting.js'

export interface OtherProxy {
  readonly port: number
  readonly output: { text: string }
  close(): Promise<void>
}

async function run(command: string, args: readonly string[], folder: string, port: number): Promise<OtherProxy> {
  const path = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`
  const child: ChildProcess = spawn(command, args, { cwd: folder, env: { ...process.env, PATH: path } })
  const output = { text: '' }
  for (const stream of [child.stdout, child.stderr]) stream?.on('data', (chunk) => (output.text += String(chunk)))
  const ended = once(child, 'exit')
  let gone = false
  void ended.then(() => (gone = true))
  const accepts = async (): Promise<boolean> => {
    if (gone) throw new Error(`${command} ended:\n${output.text}`)
    return Connection.open(port).then(
      (connection) => {
        connection.destroy()
        return true
      },
      () => false,
    )
  }
  await eventually(`${command} to listen`, accepts, true)
  const close = async () => {
    child.kill('SIGTERM')
    await ended
  }
  return { port, output, close }
}

/** @param location what stands in `location / { … }` */
export async function startNginx(location: string, upstreamPort: number): Promise<OtherProxy> {
  const folder = temporaryFolder()
  const port = await freePort()
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${folder};`)
  writeFileSync(
    join(folder, 'nginx.conf'),
    `daemon off; worker_processes 1; pid ${folder}/pid; error_log stderr;
     events {}
     http { access_log off; ${temporary.join(' ')}
       server { listen 127.0.0.1:${port}; location / { proxy_pass http://127.0.0.1:${upstreamPort}; ${location} } } }\n`,
  )
  return run('nginx', ['-e', 'stderr', '-p', folder, '-c', join(folder, 'nginx.conf')], folder, port)
}

/** @param backend lines of the backend, the server aside */
export async function startHaproxy(backend: string, server: string): Promise<OtherProxy> {
  const folder = temporaryFolder()
  const port = await freePort()
  writeFileSync(
    join(folder, 'haproxy.cfg'),
    `defaults
       mode http
       timeout connect 5s
       timeout client 20s
       timeout server 20s
       timeout check 20s
     frontend in
       bind 127.0.0.1:${port}
       default_backend out
     backend out
       ${backend}
       server gateway ${server}\n`,
  )
  return run('haproxy', ['-db', '-f', join(folder, 'haproxy.cfg')], folder, port)
}

const ENVIRONMENT_AS_TEXT = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\nexec env\n"

/** lighttpd with a CGI script at /env that answers its environment, a line a variable. */
export async function startLighttpd(): Promise<OtherProxy> {
  const folder = temporaryFolder()
  const port = await freePort()
  writeFileSync(join(folder, 'env'), ENVIRONMENT_AS_TEXT, { mode: 0o755 })
  writeFileSync(
    join(folder, 'lighttpd.conf'),
    `server.document-root = "${folder}"
     server.bind = "127.0.0.1"
     server.port = ${port}
     server.modules = ( "mod_cgi" )
     $HTTP["url"] =~ "^/env" { cgi.assign = ( "" => "" ) }\n`,
  )
  return run('lighttpd', ['-D', '-f', join(folder, 'lighttpd.conf')], folder, port)
}

/** The same with what Python brings: wsgiref, whose variables are those of CGI. */
export async function startWsgiref(): Promise<OtherProxy> {
  const folder = temporaryFolder()
  const port = await freePort()
  const program = `from wsgiref.simple_server import make_server
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return ['\\n'.join(f'{name}={value}' for name, value in environ.items()).encode('latin1')]
make_server('127.0.0.1', ${port}, application).serve_forever()`
  return run('python3', ['-c', program], folder, port)
}
