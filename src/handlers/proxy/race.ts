// Two attempts of one exchange at once, at two endpoints: the first response wins, and the other attempt is aborted. An
// exchange has one once its attempt takes long, or where its route hedges. Which attempts may be made is decided in
// tries.ts.
import type { IncomingHttpHeaders } from 'node:http'
import type { Attempt, AttemptSink } from '../../upstream/attempt.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import type { DeadlineError, UpstreamFailure } from '../../upstream/failure.js'
import type { Hedge } from '../../upstream/hedge.js'
import type { UpstreamRequest } from '../../upstream/upstream-request.js'

/** What has the attempts (tries.ts). */
export interface RaceOwner {
  /** Gets the response that wins. */
  readonly sink: AttemptSink
  nowUs(): number
  /** Another endpoint may have a better response. */
  isBad(status: number): boolean
  /** The first attempt takes long: a second one may begin. Throws nothing. */
  onLate(hedge: Hedge): void
  /** No other attempt is left. */
  onWon(attempt: Attempt, endpoint: EndpointState): void
}

const slower = new Error('another attempt was faster')
const over = new Error('the request is over')

export class Race {
  private readonly owner: RaceOwner
  private readonly first: Contender
  private second: Contender | null = null
  private hedge: Hedge | null = null
  private startUs = 0
  private timer: NodeJS.Timeout | null = null

  /** @param attempt under way, no head of a response has come */
  constructor(owner: RaceOwner, attempt: Attempt, endpoint: EndpointState) {
    this.owner = owner
    this.first = new Contender(this, attempt, endpoint)
    attempt.tell(this.first)
  }

  /** The second attempt has begun. */
  get isOn(): boolean {
    return this.second !== null
  }

  /** The first attempt has as long as the hedge says. */
  watch(hedge: Hedge): void {
    this.hedge = hedge
    this.startUs = this.owner.nowUs()
    if (hedge.delayMs === Number.POSITIVE_INFINITY) return
    this.timer = setTimeout(() => {
      this.timer = null
      this.owner.onLate(hedge)
    }, hedge.delayMs)
  }

  /** The second attempt begins. */
  join(attempt: Attempt, endpoint: EndpointState, request: UpstreamRequest): void {
    this.stop()
    this.second = new Contender(this, attempt, endpoint)
    attempt.start(request, endpoint, this.second)
  }

  /** No second attempt is to begin any more. */
  stop(): void {
    if (this.timer !== null) clearTimeout(this.timer)
    this.timer = null
  }

  /** The second attempt: the first one is its owner's. No deadline was its own: its endpoint has not failed. */
  abort(): void {
    this.second?.attempt.abort(over)
  }

  /** The first attempt is late. The second one began later and has time left. */
  leaveFirst(error: DeadlineError): void {
    const { first } = this
    const second = this.second!
    second.attempt.inherit(first.attempt)
    first.attempt.abort(error)
    this.settle(second)
  }

  // From the two.

  get sink(): AttemptSink {
    return this.owner.sink
  }

  onHead(from: Contender, status: number, headers: IncomingHttpHeaders, phrase: string): void {
    const { owner } = this
    const other = this.otherOf(from)
    if (other !== null && owner.isBad(status)) {
      other.attempt.inherit(from.attempt)
      from.attempt.discard(Number(headers['content-length'] ?? -1))
      return this.settle(other)
    }
    // Where the second one wins, the first would have taken longer still.
    this.hedge?.observe(owner.nowUs() - this.startUs)
    if (other !== null) {
      from.attempt.inherit(other.attempt)
      other.attempt.abort(slower)
    }
    this.settle(from)
    owner.sink.onHead(status, headers, phrase)
  }

  /** As AttemptSink.retryAt. The other one of two goes on, with the breaker's permit. */
  retryAt(from: Contender, failure: UpstreamFailure): EndpointState | null {
    const other = this.otherOf(from)
    if (other !== null) {
      other.attempt.inherit(from.attempt)
      return null
    }
    this.settle(from)
    return this.sink.retryAt(failure)
  }

  /** Where it was alone, the sink itself has been told. */
  onFailure(from: Contender): void {
    this.settle(this.otherOf(from)!)
  }

  private otherOf(one: Contender): Contender | null {
    return one === this.first ? this.second : this.first
  }

  private settle({ attempt, endpoint }: Contender): void {
    this.stop()
    attempt.tell(this.sink)
    this.owner.onWon(attempt, endpoint)
  }
}

/** Told of one of the two attempts, until one has won. */
class Contender implements AttemptSink {
  readonly attempt: Attempt
  readonly endpoint: EndpointState
  private readonly race: Race

  constructor(race: Race, attempt: Attempt, endpoint: EndpointState) {
    this.race = race
    this.attempt = attempt
    this.endpoint = endpoint
  }

  onSentAgain(): void {
    this.race.sink.onSentAgain()
  }

  onHead(status: number, headers: IncomingHttpHeaders, phrase: string): void {
    this.race.onHead(this, status, headers, phrase)
  }

  // What follows the head is the winner's, and goes to the sink itself.
  onData(): void {}
  onEnd(): void {}

  retryAt(failure: UpstreamFailure): EndpointState | null {
    return this.race.retryAt(this, failure)
  }

  onFailure(): void {
    this.race.onFailure(this)
  }

  onException(error: unknown): void {
    this.race.sink.onException(error)
  }
}
