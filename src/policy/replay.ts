// Was this signature accepted before? Runs per request on routes with `replay: once`. The memory is
// state/replay-table.ts; if it cannot tell, the request is refused.
//
// In two steps. First, after the signature proved valid, a remembered one is refused: so a copy is not charged to the
// limits of the caller it was taken from. Second, after the limits admitted it, it is remembered: so a caller over
// its limits fills no memory. If copies pass the first step at once, in several workers, the second step lets one
// through; the others, fewer than there are workers, are charged.
import type { Route } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { Check } from '../exchange/phase.js'
import { KeyHash } from '../state/key-hash.js'
import { REPLAY, type ReplayTable } from '../state/replay-table.js'
import type { Segment } from '../state/segment.js'

const replayed = new Rejection('unauthorized', 'replayed')
const ranOut = new Rejection('unauthorized', 'signature ran out while the body arrived')
const noShare = new Rejection('overloaded', 'consumer has its share of the memory of signatures')
const noRoom = new Rejection('overloaded', 'no room to remember another signature')
const held = new Rejection('overloaded', 'memory of signatures held by a worker that does not run')

/** Both checks are null for a route that accepts a signature several times. */
export interface ReplayGuard {
  /** Refuses a signature that is remembered or has expired. */
  refuse(route: Route): Check | null
  /** Remembers the signature; refuses it if another worker has remembered it since, or the table is full. */
  remember(route: Route): Check | null
}

export function createReplayGuard(
  table: ReplayTable,
  segment: Segment,
  routes: readonly Route[],
  wallSeconds: () => number = () => Math.floor(Date.now() / 1000),
): ReplayGuard {
  const [a, b, c, d] = segment.seed as unknown as [number, number, number, number]
  const start = new KeyHash().seed(a, b, c, d)
  const hash = new KeyHash()
  const whose = new KeyHash()
  const longest = Math.max(0, ...routes.filter((route) => route.replayOnce).flatMap(windowsSeconds))

  function keyOf({ consumer, signature }: Exchange): KeyHash {
    whose.from(start).text(consumer!.name)
    hash.from(whose).text(signature).finish()
    hash.d = whose.finish().d
    return hash
  }

  return {
    refuse({ replayOnce }) {
      if (!replayOnce) return null
      return (exchange) => {
        if (exchange.signatureUntilSeconds === 0) return null
        // A signature that the table may forget from now on must be refused, however long its body took.
        if (wallSeconds() >= exchange.signatureUntilSeconds) return ranOut
        return table.has(keyOf(exchange)) ? replayed : null
      }
    },
    remember(route) {
      if (!route.replayOnce) return null
      // A signature may be valid longer on another route, if nothing that is signed distinguishes the two.
      const longerElsewhere = longest - Math.min(longest, ...windowsSeconds(route))
      return (exchange) => {
        if (exchange.signatureUntilSeconds === 0) return null
        const keptSeconds = exchange.signatureUntilSeconds + longerElsewhere
        const verdict = table.insert(keyOf(exchange), keptSeconds, wallSeconds())
        return verdict === REPLAY.fresh ? null : (REFUSALS[verdict] as Rejection)
      }
    },
  }
}

const REFUSALS: Readonly<Record<number, Rejection>> = {
  [REPLAY.repeated]: replayed,
  [REPLAY.full]: noRoom,
  [REPLAY.stuck]: held,
  [REPLAY.share]: noShare,
}

/** For how long after its creation a route accepts a signature, given the kinds it accepts. */
function windowsSeconds({ auth, maxSkewSeconds, httpSignature }: Route): number[] {
  const windows = auth.includes('x-m') ? [maxSkewSeconds] : []
  return httpSignature === null ? windows : [...windows, httpSignature.maxAgeSeconds]
}
