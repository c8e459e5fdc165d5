// Whether this very signature has been here before: after it was found good, before anything is done for it. Runs per request on routes with
// `replay: once`. The memory is state/replay-table.ts; where that cannot tell, nobody is let in.
import type { Route } from '../config/compile.js'
import type { Exchange } from '../ingress/exchange.js'
import { Rejection } from '../outcome.js'
import { KeyHash } from '../state/key-hash.js'
import { REPLAY, type ReplayTable } from '../state/replay-table.js'
import type { Segment } from '../state/segment.js'

const replayed = new Rejection('unauthorized', 'replayed')
const ranOut = new Rejection('unauthorized', 'signature ran out while the body arrived')
const noRoom = new Rejection('overloaded', 'no room to remember another signature')
const held = new Rejection('overloaded', 'memory of signatures held by a worker that does not run')

export function createReplayGuard(
  table: ReplayTable,
  segment: Segment,
  routes: readonly Route[],
  wallSeconds: () => number = () => Math.floor(Date.now() / 1000),
): (exchange: Exchange) => Rejection | null {
  const [a, b, c, d] = segment.seed as unknown as [number, number, number, number]
  const start = new KeyHash().seed(a, b, c, d)
  const hash = new KeyHash()
  const longest = Math.max(0, ...routes.filter((route) => route.replayOnce).flatMap(windowsSeconds))
  /** By Route.index: what is stale on one route may be good for longer on another, if nothing that is signed tells them apart. */
  const longerElsewhere = routes.map((route) => longest - Math.min(longest, ...windowsSeconds(route)))

  return function refuseReplay(exchange) {
    const untilSeconds = exchange.signatureUntilSeconds
    const route = exchange.route!
    if (!route.replayOnce || untilSeconds === 0) return null
    const nowSeconds = wallSeconds()
    // What is forgotten as of now must not be let in any more, however long its body took.
    if (nowSeconds >= untilSeconds) return ranOut
    hash.from(start).text(exchange.consumer!.name).text(exchange.signature)
    const keptSeconds = untilSeconds + (longerElsewhere[route.index] as number)
    const verdict = table.insert(hash.finish(), keptSeconds, nowSeconds)
    if (verdict === REPLAY.fresh) return null
    if (verdict === REPLAY.repeated) return replayed
    return verdict === REPLAY.full ? noRoom : held
  }
}

/** How long after it was made a signature is accepted there, by the kinds that the route takes. */
function windowsSeconds({ auth, maxSkewSeconds, httpSignature }: Route): number[] {
  const windows = auth.includes('x-m') ? [maxSkewSeconds] : []
  return httpSignature === null ? windows : [...windows, httpSignature.maxAgeSeconds]
}
