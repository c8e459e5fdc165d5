// Sends doubtful requests to a gateway, whole or in parts, and says how each ended. For test/e2e/framing.test.ts and,
// with every form cut in two at every place, test/long/framing.test.ts.
import { connect } from 'node:net'
import { setTimeout as delay } from 'node:timers/promises'

/** Longer ones are not cut. */
const BYTEWISE_BYTES = 1500
const SHORT_BYTES = 130
const AT_ONCE = 64
/** Only a fault is waited for so long. */
const SILENCE_MS = 20_000

export interface Ending {
  readonly statuses: string
  readonly text: string
  readonly closed: boolean
}

/**
 * Sends the parts, each by itself, until an answer comes; ends when the gateway has closed the connection, or says
 * nothing any more.
 */
function attempt(port: number, parts: readonly Buffer[]): Promise<Ending> {
  return new Promise((resolve) => {
    let text = ''
    const socket = connect({ port, host: '127.0.0.1', noDelay: true }).setEncoding('latin1')
    const end = (closed: boolean) => {
      clearTimeout(silence)
      socket.destroy()
      const statuses = [...text.matchAll(/^HTTP\/1\.1 (\d{3})/gm)].map(([, status]) => status).join()
      resolve({ statuses, text, closed })
    }
    const silence = setTimeout(() => end(false), SILENCE_MS)
    socket.on('data', (data) => {
      text += data
      if (/^HTTP\/1\.1 200/.test(text) && /\r\n\r\n\S+ /.test(text)) end(false)
    })
    // What is still on its way when the gateway closes resets the connection, and may take the answer with it.
    socket.on('error', () => {})
    socket.on('close', () => end(true))
    socket.on('connect', async () => {
      for (const [index, part] of parts.entries()) {
        if (index > 0) await delay(parts.length === 2 ? 1 : 0)
        if (text !== '' || socket.destroyed) return
        socket.write(part)
      }
    })
  })
}

async function all<T>(jobs: readonly (() => Promise<T>)[]): Promise<T[]> {
  const results: T[] = []
  const queue = jobs.entries()
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      for (const [index, job] of queue) results[index] = await job()
    }),
  )
  return results
}

const bytesOf = (request: string): Buffer => Buffer.from(request, 'latin1')
export const whole = (request: string): Buffer[][] => [[bytesOf(request)]]

export function byteByByte(request: string): Buffer[][] {
  const bytes = bytesOf(request)
  return bytes.length <= BYTEWISE_BYTES ? [Array.from(bytes, (_, i) => bytes.subarray(i, i + 1))] : []
}

export function inTwo(request: string): Buffer[][] {
  const bytes = bytesOf(request)
  if (bytes.length > SHORT_BYTES) return []
  return Array.from({ length: bytes.length - 1 }, (_, i) => [bytes.subarray(0, i + 1), bytes.subarray(i + 1)])
}

/** What is wrong with how these ended, in words; nothing, if all is as it must be. */
export async function faults(
  port: number,
  requests: readonly string[],
  statuses: readonly number[],
  ways: (request: string) => Buffer[][],
): Promise<string[]> {
  const jobs = requests.flatMap((request) => ways(request).map((parts) => ({ request, parts })))
  const endings = await all(
    jobs.map(
      ({ parts }) =>
        () =>
          attempt(port, parts),
    ),
  )
  return endings.flatMap((ending, index) => {
    const { request, parts } = jobs[index]!
    const refused = statuses.map(String).includes(ending.statuses) || (ending.statuses === '' && parts.length > 1)
    if (refused && ending.closed) return []
    const how = parts.length === 1 ? 'whole' : `in ${parts.map((part) => part.length).join(' + ')}`.slice(0, 40)
    return [
      `${JSON.stringify(request.slice(0, 200))} ${how}: ${ending.statuses || 'nothing'}${ending.closed ? '' : ', open'}`,
    ]
  })
}

/** Answers to a request that is to be served, sent in all these ways. */
export function answers(port: number, ways: readonly (readonly Buffer[])[]): Promise<Ending[]> {
  return all(ways.map((parts) => () => attempt(port, parts)))
}
