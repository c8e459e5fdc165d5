// Runs in a thread of the digest pool: one signature check, and the body back to its owner.
import { move, transferableSymbol, valueSymbol, workerData } from 'piscina'
import type { Consumer } from '../config/compile.js'
import { signedBodyHash, Verifier } from './signature.js'

export interface DigestTask {
  /** Position in RouteTable.consumers. */
  readonly consumer: number
  readonly time: string
  readonly method: string
  readonly target: string
  readonly signBody: boolean
  readonly mac: string
  readonly body: ArrayBuffer | null
}

export interface DigestAnswer {
  readonly fits: boolean
  readonly body: ArrayBuffer | null
}

const verifiers = (workerData as readonly Consumer[]).map((consumer) => new Verifier(consumer))

export default function digest(task: DigestTask): DigestAnswer {
  const body = task.body
  const bodyHash = signedBodyHash(task.signBody, body === null ? null : new Uint8Array(body))
  const fits = verifiers[task.consumer]!.verify(task.time, task.method, task.target, bodyHash, task.mac)
  const answer: DigestAnswer = { fits, body }
  if (body === null) return answer
  // What move() is given is transferred to the other side instead of copied; its types know only the transferable itself.
  return move({ [transferableSymbol]: [body], [valueSymbol]: answer } as never) as unknown as DigestAnswer
}
