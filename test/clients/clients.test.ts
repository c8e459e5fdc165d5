// HTTP clients that nobody here wrote, over connections that they keep: each request is served, whatever its body and
// its answer are framed as.
//
// A client is a program, run with the gateway's URL and a plan: a line for each request, one after the other.
//
//   id framing expect|- body-bytes answer-bytes target      framing: none, length or chunked
//
// It prints a line for each answer that is not 200, is another request's, tells of another body than was sent, or has
// another body than was asked for; and at its end `done` and how many it has sent.
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Gateway, startGateway, temporaryFolder } from '../support/gateway.js'
import { requirePython, requireTool } from '../support/requirements.js'
import { pattern } from './plan.mjs'

/** Of each kind: no body, by length, chunked, and both of these with Expect. */
const REQUESTS = 1000
/** No divisor of the other: each meets each. */
const BODIES = [100, 100_000, 100, 100_000, 100]
const ANSWERS = [
  '0/length',
  '20/length',
  '20000/length',
  '20/chunked',
  '20000/length',
  '0/chunked',
  '20/length',
  '200000/chunked',
]

const PYTHON = '/usr/bin/python3'
const here = (name: string): string => join(import.meta.dirname, name)

const CLIENTS = [
  { name: 'curl', needs: 'curl', command: [process.execPath, here('curl.mjs')] },
  { name: "Node's http", command: [process.execPath, here('node-http.mjs')] },
  { name: 'undici', command: [process.execPath, here('undici.mjs')], expects: false },
  { name: "Java's HttpClient", needs: 'java', command: ['java', here('Client.java')] },
  { name: "Go's net/http", needs: 'go', command: ['go', 'run', here('client.go')] },
  { name: "Python's requests", module: 'requests', command: [PYTHON, here('python_requests.py')] },
  { name: "Python's httpx", module: 'httpx', command: [PYTHON, here('python_httpx.py')] },
  { name: "Python's aiohttp", module: 'aiohttp', command: [PYTHON, here('python_aiohttp.py')] },
] as const

let origin: Server
let gateway: Gateway

beforeAll(async () => {
  // Says what it received of which request, and answers with as many bytes as the path asks for.
  origin = createServer((request, response) => {
    const hash = createHash('sha256')
    request.on('data', (part: Buffer) => hash.update(part))
    request.on('error', () => {})
    request.on('end', () => {
      const [, bytes = '', framing] = request.url!.split('/')
      response.setHeader('x-request', request.headers['x-request']!)
      response.setHeader('x-received', hash.digest('hex'))
      const body = pattern(Number(bytes))
      if (framing === 'length') return response.setHeader('content-length', body.length).end(body)
      for (let at = 0; at < body.length; at += 50_000) response.write(body.subarray(at, at + 50_000))
      response.end()
    })
  })
  origin.keepAliveTimeout = 60_000
  await new Promise<void>((resolve) => origin.listen(0, '127.0.0.1', resolve))
  gateway = await startGateway({
    config: {
      services: { origin: { endpoints: [`http://127.0.0.1:${(origin.address() as AddressInfo).port}`] } },
      routes: [{ match: { path: '/' }, service: 'origin', auth: 'none' }],
    },
  })
})

afterAll(async () => {
  await gateway.close()
  origin.close()
  origin.closeAllConnections()
})

function planOf(expects: boolean): string[] {
  const kinds = ['none -', 'length -', 'chunked -', ...(expects ? ['length expect', 'chunked expect'] : [])]
  return kinds.flatMap((kind, k) =>
    Array.from({ length: REQUESTS }, (_, i) => {
      const answer = ANSWERS[i % ANSWERS.length]!
      const bodyBytes = kind === 'none -' ? 0 : BODIES[i % BODIES.length]!
      return `${k * REQUESTS + i} ${kind} ${bodyBytes} ${answer.split('/')[0]} /${answer}`
    }),
  )
}

function output([program, ...args]: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile(program!, args, { maxBuffer: 2 ** 26 }, (error, stdout, stderr) =>
      resolve(`${stdout}${error === null ? '' : `${error.message}\n${stderr}`}`),
    )
  })
}

test.for(CLIENTS)('$name', async (client, context) => {
  if ('needs' in client) requireTool(context, client.needs)
  if ('module' in client) requirePython(context, PYTHON, client.module)
  const plan = planOf(!('expects' in client))
  const file = join(temporaryFolder(), 'plan')
  writeFileSync(file, `${plan.join('\n')}\n`)
  expect(await output([...client.command, `http://127.0.0.1:${gateway.port}`, file])).toBe(`done ${plan.length}\n`)
})
