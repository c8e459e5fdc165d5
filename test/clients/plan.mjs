// What the clients in JavaScript have in common: they follow the plan, one request after the other, and say what was
// wrong.
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'

const patterns = new Map()

/** The body of that many bytes, of a request or an answer. */
export function pattern(bytes) {
  let known = patterns.get(bytes)
  if (known === undefined) {
    known = Buffer.from(Uint8Array.from({ length: bytes }, (_, i) => 97 + (i % 23)))
    patterns.set(bytes, known)
  }
  return known
}

const hashes = new Map()

function hashOf(bytes) {
  if (!hashes.has(bytes)) hashes.set(bytes, createHash('sha256').update(pattern(bytes)).digest('hex'))
  return hashes.get(bytes)
}

export function readPlan() {
  const [, , base, file] = process.argv
  return readFileSync(file, 'utf8')
    .trim()
    .split('\n')
    .map((line) => {
      const [id, framing, expect, bodyBytes, answerBytes, target] = line.split(' ')
      return {
        id,
        framing,
        expect: expect === 'expect',
        bodyBytes: Number(bodyBytes),
        answerBytes: Number(answerBytes),
        url: `${base}${target}`,
      }
    })
}

/** What is wrong with an answer; '' when nothing is. */
export function faultOf({ id, bodyBytes, answerBytes }, { status, headers, body }) {
  if (status !== 200) return `status ${status}`
  if (headers['x-request'] !== id) return `the answer to ${headers['x-request']}`
  if (headers['x-received'] !== hashOf(bodyBytes)) return 'another body was received'
  return body.equals(pattern(answerBytes)) ? '' : `another answer, of ${body.length} bytes`
}

/** @param send resolves with status, headers (names in lower case) and body of the answer */
export async function follow(send) {
  const plan = readPlan()
  for (const one of plan) {
    const fault = await send(one).then(
      (answer) => faultOf(one, answer),
      (error) => String(error?.stack ?? error),
    )
    if (fault !== '') console.log(`${one.id}: ${fault}`)
  }
  console.log(`done ${plan.length}`)
}
