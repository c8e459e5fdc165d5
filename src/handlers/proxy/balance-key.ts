// Stands before the proxy handler of a service that balances by a hash, and of no other: notes what the request's
// endpoint is chosen by. Runs per request.
import type { Service } from '../../config/compile.js'
import type { Exchange } from '../../exchange/exchange.js'
import { requestKeyReader } from '../../exchange/request-key.js'
import { hashOf } from '../../upstream/cluster/hash.js'
import type { Handler } from '../handler.js'

export function withBalanceKey(handler: Handler, service: Service): Handler {
  const keyOf = balanceKeyReader(service)
  return keyOf === null ? handler : new Keyed(handler, keyOf)
}

/** What Cluster.pick wants to know of a request, 0 where the request has none. Null: the service has no use for it. */
export function balanceKeyReader({ balance }: Service): ((exchange: Exchange) => number) | null {
  if (balance.kind !== 'hash') return null
  const { part } = balance
  const textOf = part.kind === 'path' ? pathOf : requestKeyReader(part)
  return (exchange) => {
    const text = textOf(exchange)
    return text === '' ? 0 : hashOf(text)
  }
}

class Keyed implements Handler {
  readonly needsBody: boolean
  private readonly handler: Handler
  private readonly keyOf: (exchange: Exchange) => number

  constructor(handler: Handler, keyOf: (exchange: Exchange) => number) {
    this.needsBody = handler.needsBody
    this.handler = handler
    this.keyOf = keyOf
  }

  handle(exchange: Exchange): void {
    exchange.balanceKey = this.keyOf(exchange)
    this.handler.handle(exchange)
  }
}

function pathOf({ canonicalPath }: Exchange): string {
  return canonicalPath
}
