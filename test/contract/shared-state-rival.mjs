// One of several workers that fight over a segment in shared-state.test.ts: a forked process or a thread, which does
// what it is told by messages and answers with what came of it. Runs the compiled sources, since neither loads
// TypeScript.
import { isMainThread, parentPort, threadId } from 'node:worker_threads'
import { BreakerTable } from '../../dist/src/state/breaker-table.js'
import { Bucket } from '../../dist/src/state/bucket.js'
import { Charge } from '../../dist/src/state/charge.js'
import { KeyHash } from '../../dist/src/state/key-hash.js'
import { RateTable } from '../../dist/src/state/rate-table.js'
import { ReplayTable } from '../../dist/src/state/replay-table.js'
import { attachSegment } from '../../dist/src/state/segment.js'
import { shareOf } from '../../dist/src/state/share.js'
import { Window } from '../../dist/src/state/window.js'
import { Breaker } from '../../dist/src/upstream/breaker.js'

/** rate-table.ts. */
const GRACE_US = 100_000

const port = isMainThread ? process : parentPort
const answer = (message) => (isMainThread ? process.send(message) : parentPort.postMessage(message))

let segment
let table
let breaker
let replays
let start

function charge(key, meter, cost = 1) {
  const made = new Charge()
  made.set(meter, meter.cost(cost), shareOf(1, start, table.narrow.rows, start), keyOf(key))
  return made
}

const keyOf = (text) => new KeyHash().from(start).text(text).finish()

/** Without a burst it is a window. */
const meterOf = (quantity, seconds, burst) =>
  burst === undefined ? new Window(quantity, seconds) : new Bucket(quantity, seconds, burst)

const tasks = {
  attach({ handle, owner, service }) {
    segment = attachSegment(handle)
    table = new RateTable(segment, owner)
    breaker = new Breaker(new BreakerTable(segment), service, owner)
    replays = new ReplayTable(segment, owner)
    start = new KeyHash().seed(...segment.seed)
    return { pid: process.pid, threadId }
  },

  /**
   * Time stands still: what is admitted is what the buckets held. Answers how often each key was asked for and
   * admitted.
   */
  frozen({ decisions, keys, rate: [quantity, seconds, burst], nowUs, stride }) {
    const rate = meterOf(quantity, seconds, burst)
    const charges = Array.from({ length: keys }, (_, key) => charge(`key-${key}`, rate))
    const asked = new Int32Array(keys)
    const admitted = new Int32Array(keys)
    for (let i = 0, key = 0; i < decisions; i++, key = (key + stride) % keys) {
      asked[key]++
      if (table.admit(charges[key], nowUs) === 0) admitted[key]++
    }
    return { asked: [...asked], admitted: [...admitted] }
  },

  /** Time stands still. Requests that need both buckets in turn with requests that need one. */
  several({ requests, names, rates, nowUs }) {
    const charges = names.map((name, i) => charge(name, meterOf(...rates[i])))
    const refilled = () => {
      for (const each of charges) each.verdict = 0
      return charges
    }
    let all = 0
    let first = 0
    for (let i = 0; i < requests; i++) {
      if (i % 3 < 2 && table.admitAll(refilled(), charges.length, nowUs) === -1) all++
      if (i % 3 === 2 && table.admit(charges[0], nowUs) === 0) first++
    }
    return { all, first }
  },

  /** As fast as it goes until the segment's clock says so. Tells between which decisions it had no core for 20 ms. */
  clocked({ untilUs, rate: [quantity, seconds, burst] }) {
    const one = charge('hot', meterOf(quantity, seconds, burst))
    let admitted = 0
    const firstUs = segment.nowUs()
    let nowUs = firstUs
    let decisions = 0
    let before = firstUs
    const pauses = []
    for (; nowUs < untilUs; nowUs = segment.nowUs()) {
      if (nowUs - before > 20_000) pauses.push([before, nowUs])
      before = nowUs
      decisions++
      if (table.admit(one, nowUs) === 0) admitted++
    }
    return { admitted, decisions, firstUs, lastUs: nowUs, pauses: [...pauses, [before, nowUs]] }
  },

  /**
   * As fast as it goes until the segment's clock says so. Answers when each was admitted that was, by its own time and
   * by that at which it was counted, and when some were refused; of these only who was not stopped while it asked.
   */
  timed({ untilUs, key, rate: [quantity, seconds] }) {
    const one = charge(key, new Window(quantity, seconds))
    const admitted = []
    const counted = []
    const refused = []
    for (let nowUs = segment.nowUs(); nowUs < untilUs; nowUs = segment.nowUs()) {
      if (table.admit(one, nowUs) === 0) {
        admitted.push(nowUs)
        counted.push(one.newestUs)
      } else if ((refused.at(-1) ?? 0) < nowUs - 500 && segment.nowUs() - nowUs < 100) refused.push(nowUs)
    }
    return { admitted, counted, refused }
  },

  /** The same, told of each that was admitted as it is, for it will be killed. */
  timedUntilKilled({ key, rate: [quantity, seconds] }) {
    answer({ going: true })
    const one = charge(key, new Window(quantity, seconds))
    for (;;) {
      const nowUs = segment.nowUs()
      if (table.admit(one, nowUs) === 0) answer({ admitted: nowUs })
    }
  },

  /**
   * Eight groups of keys, one after the other: each group has to take over the slots of one before it, key by key and
   * all workers at once. Answers who got in when. A worker that loses its core between reading the time and the
   * decision, for longer than a slot's time must have passed before another key gets it, decides for a moment that the
   * table has forgotten. When it decided nobody can say: left out.
   */
  takeovers({ startUs, untilUs, groupUs, keys }) {
    const rate = new Bucket(1000, 1, 1)
    const charges = Array.from({ length: keys * 8 }, (_, key) => charge(`key-${key}`, rate))
    const admitted = []
    let undecided = 0
    for (let i = 0, nowUs = segment.nowUs(); nowUs < untilUs; nowUs = segment.nowUs(), i++) {
      const group = Math.max(0, Math.floor((nowUs - startUs) / groupUs)) % 8
      const key = group * keys + (i % keys)
      const verdict = table.admit(charges[key], nowUs)
      if (verdict === 0 && segment.nowUs() - nowUs < GRACE_US) admitted.push(key, nowUs)
      if (verdict === 2) undecided++
    }
    return { admitted, undecided }
  },

  /** Until it is killed: fresh keys, and requests with two buckets and a window. */
  forever({ nowUs, salt }) {
    answer({ going: true })
    const rate = new Bucket(1000, 1, 1)
    const wide = new Bucket(1_000_000, 1, 1_000_000)
    const window = new Window(90, 1)
    const several = [charge('one', wide), charge('two', wide), charge('three', new Window(1_000_000, 1))]
    for (let i = 0; ; i++) {
      table.admit(charge(`${salt}-${i}`, i % 2 === 0 ? rate : window), nowUs + i * 2000)
      for (const each of several) each.verdict = 0
      table.admitAll(several, several.length, nowUs + i * 2000)
    }
  },

  /**
   * Time stands still, but all begin at once. Answers which of the keys, brought in an order of its own, were let in.
   */
  once({ startUs, keys, stride, untilSeconds, nowSeconds }) {
    const passed = []
    while (segment.nowUs() < startUs);
    for (let i = 0, key = 0; i < keys; i++, key = (key + stride) % keys) {
      if (replays.insert(keyOf(`once-${key}`), untilSeconds, nowSeconds) === 0) passed.push(key)
    }
    return { passed }
  },

  /**
   * A second has `secondUs`, and keys of its own that everybody brings again and again while it lasts; they take over
   * the slots of those before them. Answers which were let in, as often as they were.
   */
  onceEach({ startUs, untilUs, secondUs, keys, startSeconds, lives }) {
    const passed = []
    let brought = 0
    for (let i = 0, nowUs = segment.nowUs(); nowUs < untilUs; nowUs = segment.nowUs(), i++) {
      const second = Math.floor((nowUs - startUs) / secondUs)
      const key = second * keys + (i % keys)
      const now = startSeconds + second
      if (replays.insert(keyOf(`each-${key}`), now + lives, now) === 0) passed.push(key)
      brought++
    }
    return { passed, brought }
  },

  /** Until it is killed: fresh keys. */
  onceForever({ salt, nowSeconds }) {
    answer({ going: true })
    for (let i = 0; ; i++) replays.insert(keyOf(`${salt}-${i}`), nowSeconds + (i >> 8) + 1, nowSeconds + (i >> 8))
  },

  /** Permits until it is refused; kept unless `outcome` says how to give them back. */
  admit({ nowUs, times, outcome }) {
    const permits = []
    for (let i = 0; i < times; i++) {
      const permit = breaker.admit(nowUs)
      if (permit >= 0) permits.push(permit)
    }
    if (outcome !== undefined) for (const permit of permits) breaker.report(permit, outcome, nowUs)
    return { permits, state: breaker.state }
  },

  report({ permits, outcome, nowUs }) {
    for (const permit of permits) breaker.report(permit, outcome, nowUs)
    return { state: breaker.state }
  },
}

port.on('message', ({ task, ...input }) => answer(tasks[task](input)))
