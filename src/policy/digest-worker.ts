// Runs in a thread of the digest pool: checks one signature and transfers the body back.
import { move, transferableSymbol, valueSymbol, workerData } from 'piscina'
import type { Consumer } from '../config/compile.js'
import { digestFits } from './content-digest.js'
import { signedBodyHash, Verifier } from './signature.js'

export interface XmTask {
  /** Position in RouteTable.consumers. */
  readonly consumer: number
  readonly time: string
  readonly method: string
  readonly target: string
  readonly signBody: boolean
  readonly mac: string
  readonly body: ArrayBuffer | null
}

export interface ContentDigestTask {
  /** The field's value. */
  readonly contentDigest: string
  readonly body: ArrayBuffer | null
}

export type DigestTask = XmTask | ContentDigestTask

export interface DigestAnswer {
  readonly fits: boolean
  readonly body: ArrayBuffer | null
}

const verifiers = (workerData as readonly Consumer[]).map((consumer) => new Verifier(consumer))

export default function digest(task: DigestTask): DigestAnswer {
  const body = task.body
  const answer: DigestAnswer = { fits: fits(task, body === null ? null : new Uint8Array(body)), body }
  if (body === null) return answer
  // move() transfers its argument instead of copying it; its types only know the transferable itself.
  return move({ [transferableSymbol]: [body], [valueSymbol]: answer } as never) as unknown as DigestAnswer
}

function fits(task: DigestTask, body: Uint8Array | null): boolean {
  if ('contentDigest' in task) return digestFits(task.contentDigest, body)
  const bodyHash = signedBodyHash(task.signBody, body)
  return verifiers[task.consumer]!.verify(task.time, task.method, task.target, bodyHash, task.mac)
}
