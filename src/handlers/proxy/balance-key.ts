// Stands before the proxy handler of a service that balances by a hash, and of no other: notes what the request's
// endpoint is chosen by. Runs per request.
import type { Service } from '../../config/compile.js'
import type { Exchange } from '../../exchange/exchange.js'
import { requestKeyReader } from '../../exchange/request-key.js'
import { hashOf } from '../../upstream/cluster/hash.js'
import type { Handler } from '../handler.js'

export function withBalanceKey(handler: Handler, { balance }: Service): Handler {
  if (balance.kind !== 'hash') return handler
  const { part } = balance
  return new Keyed(handler, part.kind === 'path' ? pathOf : requestKeyReader(part))
}

class Keyed implements Handler {
  readonly needsBody: boolean
  private readonly handler: Handler
  private readonly keyOf: (exchange: Exchange) => string

  constructor(handler: Handler, keyOf: (exchange: Exchange) => string) {
    this.needsBody = handler.needsBody
    this.handler = handler
    this.keyOf = keyOf
  }

  handle(exchange: Exchange): void {
    const text = this.keyOf(exchange)
    exchange.balanceKey = text === '' ? 0 : hashOf(text)
    this.handler.handle(exchange)
  }
}

function pathOf({ canonicalPath }: Exchange): string {
  return canonicalPath
}
