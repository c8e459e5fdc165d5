// What a server of any protocol needs of the phases: to whom it gives a request whose head is here, and what the
// configuration says about heads.
import type { RouteTable } from '../config/compile.js'
import type { Exchange } from '../exchange/exchange.js'
import type { Rejection } from '../exchange/outcome.js'
import type { ClientCertificates } from './client-certificate.js'

/** The phases of one generation: the newest, when the request arrives. */
export interface Receiver {
  readonly heads: HeadRules
  /** The exchange is the phases' from now on, and has a place for its exceptions. Calls pass() next. */
  begin(exchange: Exchange): void
  /** @param refused what is wrong with its head; null where nothing is */
  pass(exchange: Exchange, refused: Rejection | null): void
}

export interface HeadRules {
  readonly table: Pick<RouteTable, 'trustedProxies' | 'underscoresInHeaders' | 'paths'>
  /** Null where clients are not asked for one. */
  readonly certificates: ClientCertificates | null
}
