// Whether this very signature has been here before. Runs per request on routes with `replay: once`. The memory is state/replay-table.ts; where
// that cannot tell, nobody is let in.
//
// In two steps. Once the signature was found good, one that is remembered is refused: a copy is charged to no limit of the caller it was taken
// from. Once limits have admitted it, it is remembered: a caller over its limits fills no memory. Of copies that pass the first step at once,
// in several workers, the second lets one through; the others, fewer than there are workers, are charged.
import type { Route } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import { KeyHash } from '../state/key-hash.js'
import { REPLAY, type ReplayTable } from '../state/replay-table.js'
import type { Segment } from '../state/segment.js'

const replayed = new Rejection('unauthorized', 'replayed')
const ranOut = new Rejection('unauthorized', 'signature ran out while the body arrived')
const noShare = new Rejection('overloaded', 'consumer has its share of the memory of signatures')
const noRoom = new Rejection('overloaded', 'no room to remember another signature')
const held = new Rejection('overloaded', 'memory of signatures held by a worker that does not run')

export interface ReplayGuard {
  /** Refuses what is remembered, and what has run out. */
  refuse(exchange: Exchange): Rejection | null
  /** Remembers it; refuses what another worker has remembered since, and what there is no room for. */
  remember(exchange: Exchange): Rejection | null
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
  /** By Route.index: what is stale on one route may be good for longer on another, if nothing that is signed tells them apart. */
  const longerElsewhere = routes.map((route) => longest - Math.min(longest, ...windowsSeconds(route)))

  function keyOf({ consumer, signature }: Exchange): KeyHash {
    whose.from(start).text(consumer!.name)
    hash.from(whose).text(signature).finish()
    hash.d = whose.finish().d
    return hash
  }

  function concerns(exchange: Exchange): boolean {
    return exchange.route!.replayOnce && exchange.signatureUntilSeconds !== 0
  }

  return {
    refuse(exchange) {
      if (!concerns(exchange)) return null
      // What is forgotten as of now must not be let in any more, however long its body took.
      if (wallSeconds() >= exchange.signatureUntilSeconds) return ranOut
      return table.has(keyOf(exchange)) ? replayed : null
    },
    remember(exchange) {
      if (!concerns(exchange)) return null
      const keptSeconds = exchange.signatureUntilSeconds + (longerElsewhere[exchange.route!.index] as number)
      const verdict = table.insert(keyOf(exchange), keptSeconds, wallSeconds())
      return verdict === REPLAY.fresh ? null : (REFUSALS[verdict] as Rejection)
    },
  }
}

const REFUSALS: Readonly<Record<number, Rejection>> = {
  [REPLAY.repeated]: replayed,
  [REPLAY.full]: noRoom,
  [REPLAY.stuck]: held,
  [REPLAY.share]: noShare,
}

/** How long after it was made a signature is accepted there, by the kinds that the route takes. */
function windowsSeconds({ auth, maxSkewSeconds, httpSignature }: Route): number[] {
  const windows = auth.includes('x-m') ? [maxSkewSeconds] : []
  return httpSignature === null ? windows : [...windows, httpSignature.maxAgeSeconds]
}
