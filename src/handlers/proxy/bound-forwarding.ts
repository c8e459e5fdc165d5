// A forwarding that has a place at its service (upstream/bulkhead.ts), and gives it back once, as soon as the service's
// part is over: with the whole response, a failure that no attempt follows, or the client's leaving. Runs per request.
import type { Exchange } from '../../exchange/exchange.js'
import type { Attempt } from '../../upstream/attempt.js'
import type { Bulkhead } from '../../upstream/bulkhead.js'
import type { Cluster } from '../../upstream/cluster/cluster.js'
import type { EndpointState } from '../../upstream/cluster/endpoint-state.js'
import type { HandlerContext } from '../handler.js'
import { Forwarding } from './forwarding.js'

export class BoundForwarding extends Forwarding {
  /** Null once the place is given back. */
  private bulkhead: Bulkhead | null

  constructor(
    context: HandlerContext,
    exchange: Exchange,
    cluster: Cluster,
    endpoint: EndpointState,
    attempt: Attempt,
    bulkhead: Bulkhead,
  ) {
    super(context, exchange, cluster, endpoint, attempt)
    this.bulkhead = bulkhead
  }

  protected override letGo(nowUs: number): void {
    try {
      super.letGo(nowUs)
    } finally {
      this.leave()
    }
  }

  override endService(): void {
    try {
      super.endService()
    } finally {
      this.leave()
    }
  }

  private leave(): void {
    const { bulkhead } = this
    this.bulkhead = null
    bulkhead?.leave()
  }
}
