// Makes request ids and W3C trace context when an exchange begins. Runs per request: random digits are drawn thousands
// at a time and sliced, and nothing is parsed twice.
import { randomFillSync } from 'node:crypto'

const POOL_BYTES = 8192
const pool = Buffer.allocUnsafeSlow(POOL_BYTES)
let digits = ''
let used = 0

function randomHex(count: number): string {
  if (used + count > digits.length) {
    digits = randomFillSync(pool).toString('hex')
    used = 0
  }
  used += count
  return digits.slice(used - count, used)
}

function isHex(text: string, from: number, to: number): boolean {
  for (let i = from; i < to; i++) {
    const c = text.charCodeAt(i)
    // 0-9 or a-f. Upper case is refused: trace context §3.2.2, and two spellings of one id would be two ids in the log.
    if (!((c >= 48 && c <= 57) || (c >= 97 && c <= 102))) return false
  }
  return true
}

function isZero(text: string, from: number, to: number): boolean {
  for (let i = from; i < to; i++) if (text.charCodeAt(i) !== 48) return false
  return true
}

/** A request id: 32 lower-case hex digits, never all zero, so that it can be a trace id as it is. */
export function newRid(): string {
  let rid = randomHex(32)
  while (isZero(rid, 0, 32)) rid = randomHex(32)
  return rid
}

/** Whether the client's own x-rid is well-formed and may be kept on a route that trusts it. */
export function validRid(rid: string): boolean {
  return rid.length === 32 && isHex(rid, 0, 32) && !isZero(rid, 0, 32)
}

/**
 * Whether the client's trace is continued. If not, its `tracestate` must not be forwarded either (trace context §3.3).
 * Versions above 00 may be longer, but only after a dash (§3.2.4); ff is no version.
 */
export function validTraceparent(value: string): boolean {
  if (value.length < 55 || !isHex(value, 0, 2)) return false
  const version00 = value.charCodeAt(0) === 48 && value.charCodeAt(1) === 48
  if (version00 ? value.length !== 55 : value.length > 55 && value.charCodeAt(55) !== 45) return false
  if (value.charCodeAt(0) === 102 && value.charCodeAt(1) === 102) return false
  if (value.charCodeAt(2) !== 45 || value.charCodeAt(35) !== 45 || value.charCodeAt(52) !== 45) return false
  if (!isHex(value, 3, 35) || !isHex(value, 36, 52) || !isHex(value, 53, 55)) return false
  return !isZero(value, 3, 35) && !isZero(value, 36, 52)
}

/**
 * The value that goes upstream: the client's trace with a new parent id, or a new trace whose id is the rid.
 *
 * Flags: `sampled` (1) and level 2's `random` (2) are kept, undefined bits are cleared as §3.2.2.5 asks. A trace
 * started here is sampled: its access line is the record, and 00 would switch off the services' own parent-based
 * samplers.
 */
export function traceparent(incoming: string, rid: string): string {
  let parentId = randomHex(16)
  while (isZero(parentId, 0, 16)) parentId = randomHex(16)
  if (!validTraceparent(incoming)) return `00-${rid}-${parentId}-01`
  return `00-${incoming.slice(3, 35)}-${parentId}-0${hexDigit(incoming.charCodeAt(54)) & 3}`
}

function hexDigit(c: number): number {
  return c < 58 ? c - 48 : c - 87
}
