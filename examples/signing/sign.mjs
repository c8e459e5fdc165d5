#!/usr/bin/env node
// Signs a request for Tidegate and sends it. Node 20 or newer, nothing to install.
//   X_SOURCE=test X_SECRET=demo-secret-of-test node sign.mjs [--headers] METHOD URL [FILE]
// FILE is the body. --headers prints the three headers instead of sending. X_TIME sets the time, for tests.
import { createHash, createHmac } from 'node:crypto'
import { readFileSync } from 'node:fs'

/** `target` is path and query as they are sent; `body` the exact bytes. */
function signedHeaders(source, secret, method, target, body, time = Math.floor(Date.now() / 1000)) {
  const bodyHash = createHash('sha256').update(body).digest('hex')
  const text = [source, time, method, target, bodyHash].join('\n')
  const mac = createHmac('sha256', secret).update(text).digest('hex')
  return { 'x-source': source, 'x-time': String(time), 'x-m': mac }
}

const words = process.argv.slice(2)
const headersOnly = words[0] === '--headers'
if (headersOnly) words.shift()
const [method, address, file] = words
if (method === undefined || address === undefined) {
  console.error('usage: X_SOURCE=… X_SECRET=… node sign.mjs [--headers] METHOD URL [FILE]')
  process.exit(2)
}
const url = new URL(address)
const body = file === undefined ? Buffer.alloc(0) : readFileSync(file)
const { X_SOURCE = '', X_SECRET = '', X_TIME } = process.env
const headers = signedHeaders(X_SOURCE, X_SECRET, method, url.pathname + url.search, body, X_TIME)

if (headersOnly) {
  for (const [name, value] of Object.entries(headers)) console.log(`${name}: ${value}`)
} else {
  const answer = await fetch(url, { method, headers, ...(body.length > 0 && { body }) })
  console.log(answer.status, answer.headers.get('x-rid'))
  process.stdout.write(await answer.text())
}
