// Identifies consumers by the certificate of their connection, which the handshake has verified
// (downstream/client-certificate.ts reads its names). Runs per request.
import type { Consumer, RouteTable } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'
import type { Strategy } from './strategy.js'

const noCertificate = new Rejection('unauthorized', 'client certificate missing')
const unknownName = new Rejection('unauthorized', 'client certificate names no consumer')

export class KnownByCertificate implements Strategy {
  private readonly consumers: ReadonlyMap<string, Consumer>

  constructor(table: RouteTable) {
    this.consumers = new Map(
      table.consumers.flatMap((consumer) => consumer.certificateNames.map((name) => [name, consumer] as const)),
    )
  }

  presents(exchange: Exchange): boolean {
    return exchange.certificateNames !== null
  }

  identify(exchange: Exchange): Rejection | null {
    const names = exchange.certificateNames
    if (names === null) return noCertificate
    for (let i = 0; i < names.length; i++) {
      const consumer = this.consumers.get(names[i] as string)
      if (consumer === undefined) continue
      exchange.consumer = consumer
      return null
    }
    return unknownName
  }
}
