// What a server of any protocol needs of the phases: they receive the exchange of each request whose head has arrived,
// and say what the configuration allows in heads.
import type { RouteTable } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'
import type { ClientCertificates } from './client-certificate.js'

/** The phases of one generation: the newest, when the request arrives. */
export interface Receiver {
  readonly heads: HeadRules
  /** The phases take the exchange over: from now on they end it if something throws. The server calls pass() next. */
  begin(exchange: Exchange): void
  /** @param refused what is wrong with its head; null where nothing is */
  pass(exchange: Exchange, refused: Rejection | null): void
}

export interface HeadRules {
  readonly table: Pick<RouteTable, 'trustedProxies' | 'underscoresInHeaders' | 'paths'>
  /** Null where clients are not asked for one. */
  readonly certificates: ClientCertificates | null
}
