// Turns a client address into a limit's key: the 32 bits of IPv4, the first 64 of IPv6, since one subscriber has those
// (RFC 6177). Runs per request: it reads the text in any abbreviation and allocates nothing.
import type { KeyHash } from '../state/key-hash.js'

const KIND_V4 = 4
const KIND_V6 = 6
const groups = new Uint16Array(8)

/** A text that is not an address serves as the key unchanged. */
export function hashAddress(hash: KeyHash, text: string): void {
  const v4 = parseV4(text, 0)
  if (v4 >= 0) {
    hash.pair(KIND_V4, 0, v4 | 0)
    return
  }
  if (!parseV6(text)) {
    hash.text(text)
    return
  }
  const high = ((groups[0] as number) << 16) | (groups[1] as number)
  const low = ((groups[2] as number) << 16) | (groups[3] as number)
  // ::ffff:a.b.c.d is an IPv4 client on a socket of both families.
  if (high === 0 && low === 0 && groups[4] === 0 && groups[5] === 0xffff) {
    hash.pair(KIND_V4, 0, ((groups[6] as number) << 16) | (groups[7] as number))
    return
  }
  hash.pair(KIND_V6, high, low)
}

/** The same key as text, for tables that belong to one worker. */
export function addressKey(text: string): string {
  if (!text.includes(':') || !parseV6(text)) return text
  if (groups[0] === 0 && groups[1] === 0 && groups[4] === 0 && groups[5] === 0xffff) {
    return `${groups[6]! >> 8}.${groups[6]! & 255}.${groups[7]! >> 8}.${groups[7]! & 255}`
  }
  return `${groups[0]}:${groups[1]}:${groups[2]}:${groups[3]}`
}

/** Reads dotted decimal from `start` to the end as a number; -1 if it is none. */
function parseV4(text: string, start: number): number {
  let address = 0
  let part = -1
  let dots = 0
  for (let i = start; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 48
    if (digit >= 0 && digit <= 9) {
      part = part < 0 ? digit : part * 10 + digit
      if (part > 255) return -1
    } else if (digit === -2 && part >= 0 && dots < 3) {
      address = address * 256 + part
      part = -1
      dots++
    } else return -1
  }
  return dots === 3 && part >= 0 ? address * 256 + part : -1
}

/** Writes to `groups`. A zone (`%eth0`) is left out: it names this machine's interface, not the peer. */
function parseV6(text: string): boolean {
  const zone = text.indexOf('%')
  const end = zone < 0 ? text.length : zone
  let count = 0
  let gap = -1
  let i = 0
  if (text.startsWith('::')) {
    gap = 0
    i = 2
  }
  while (i < end) {
    if (count === 8) return false
    let value = 0
    let digits = 0
    const start = i
    for (; i < end; i++) {
      const digit = hexDigit(text.charCodeAt(i))
      if (digit < 0) break
      value = value * 16 + digit
      if (++digits > 4) return false
    }
    if (i < end && text.charCodeAt(i) === 46) {
      const v4 = parseV4(zone < 0 ? text : text.slice(0, zone), start)
      if (v4 < 0 || count > 6) return false
      groups[count++] = v4 >>> 16
      groups[count++] = v4
      i = end
      break
    }
    if (digits === 0) return false
    groups[count++] = value
    if (i === end) break
    if (text.charCodeAt(i) !== 58) return false
    i++
    if (i === end) return false
    if (text.charCodeAt(i) === 58) {
      if (gap >= 0) return false
      gap = count
      i++
    }
  }
  if (gap < 0) return count === 8
  if (count > 7) return false
  const tail = count - gap
  for (let k = 1; k <= tail; k++) groups[8 - k] = groups[count - k] as number
  groups.fill(0, gap, 8 - tail)
  return true
}

function hexDigit(code: number): number {
  if (code >= 48 && code <= 57) return code - 48
  const letter = code | 32
  return letter >= 97 && letter <= 102 ? letter - 87 : -1
}
