// Before anything is timed: every contender answers the same request with the same status and body, and refuses the
// same callers.
import { request } from 'node:http'
import type { Case } from './scenarios.js'
import { sign } from './signature.js'

export interface Answer {
  readonly status: number
  readonly body: Buffer
}

export const HOST = 'demo.i.com'

export function ask(
  port: number,
  method: string,
  path: string,
  headers: Record<string, string>,
  body: Buffer,
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const length = body.length > 0 ? { 'content-length': String(body.length) } : {}
    const sent = request(
      {
        host: '127.0.0.1',
        port,
        method,
        path,
        headers: { host: HOST, ...headers, ...length },
        agent: false,
        timeout: 5000,
      },
      (response) => {
        const chunks: Buffer[] = []
        response.on('data', (chunk: Buffer) => chunks.push(chunk))
        response.on('end', () => resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks) }))
        response.on('error', reject)
      },
    )
    sent.on('timeout', () => sent.destroy(new Error('no answer in 5 s')))
    sent.on('error', reject)
    sent.end(body)
  })
}

export function requestBody(of: Case): Buffer {
  return Buffer.alloc(of.bodyBytes, 'signed upload ')
}

/** What is wrong with the contender on this port, or null. */
export async function refusal(of: Case, port: number, originPort: number): Promise<string | null> {
  const body = requestBody(of)
  const path = of.expect === 429 ? '/' : of.path
  const wanted = await ask(originPort, of.method, path, {}, body)
  const signed = of.job === 'whole' ? sign(of.method, path, body) : {}
  try {
    const got = await ask(port, of.method, path, signed, body)
    if (got.status !== wanted.status) return `answers ${got.status} where the origin answers ${wanted.status}`
    if (!got.body.equals(wanted.body))
      return `answers ${got.body.length} bytes that differ from the origin's ${wanted.body.length}`
    if (of.job === 'bare') return null
    for (const [what, headers] of forged(of, path, body)) {
      const { status } = await ask(port, of.method, path, headers, body)
      if (status !== 401) return `answers ${status} to ${what}`
    }
  } catch (error) {
    return `does not answer: ${(error as Error).message}`
  }
  return null
}

function forged(of: Case, path: string, body: Buffer): [string, Record<string, string>][] {
  const good = sign(of.method, path, body)
  const nowSeconds = Math.floor(Date.now() / 1000)
  return [
    ['a wrong x-m', { ...good, 'x-m': badSignature(good['x-m']!) }],
    ['a signature over another body', sign(of.method, path, Buffer.concat([body, Buffer.from('!')]))],
    ['a signature over another path', sign(of.method, `${path}?`, body)],
    ['a signature that is an hour old', sign(of.method, path, body, nowSeconds - 3600)],
    ['an unknown caller', { ...good, 'x-source': 'nobody' }],
    ['no signature', {}],
  ]
}

/** Right in form and length, wrong in its last digit: refused only after the whole check. */
export function badSignature(good: string): string {
  return good.slice(0, -1) + (good.endsWith('0') ? '1' : '0')
}
