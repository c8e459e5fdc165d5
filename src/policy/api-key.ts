// Identifies consumers by an API key, in a header or in the query. Runs per request. A key is looked up by its SHA-256:
// the time this takes tells nothing about the stored keys, since an attacker cannot choose how a hash begins.
import { hash } from 'node:crypto'
import type { Consumer, RouteTable } from '../config/compile.js'
import { soleValue } from '../config/parameter.js'
import { bytesOf } from '../config/patterns.js'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection, wrongCredentials } from '../exchange/outcome.js'
import { type Strategy, soleHeader } from './strategy.js'

const missing = new Rejection('unauthorized', 'API key missing')
const several = new Rejection('unauthorized', 'several API keys')
const unknown = wrongCredentials('API key unknown')

export class KnownByApiKey implements Strategy {
  private readonly header: string
  private readonly parameter: string | null
  /** By sha256:HEX. */
  private readonly consumers: ReadonlyMap<string, Consumer>

  constructor(table: Pick<RouteTable, 'consumers' | 'apiKeyHeader' | 'apiKeyParameter'>) {
    this.header = table.apiKeyHeader
    this.parameter = table.apiKeyParameter
    this.consumers = new Map(table.consumers.flatMap((consumer) => consumer.apiKeys.map((key) => [key, consumer])))
  }

  presents(exchange: Exchange): boolean {
    return this.keyOf(exchange) !== ''
  }

  identify(exchange: Exchange): Rejection | null {
    const key = this.keyOf(exchange)
    if (key === '') return missing
    // The gateway cannot know which of them the service would use.
    if (key === null) return several
    const consumer = this.consumers.get(`sha256:${hash('sha256', Buffer.from(key, 'latin1'), 'hex')}`)
    if (consumer === undefined) return unknown
    exchange.consumer = consumer
    return null
  }

  /** Returns the key's bytes; '' if there is none, null if there are several. */
  private keyOf(exchange: Exchange): string | null {
    const sent = soleHeader(exchange, this.header)
    if (this.parameter === null || exchange.query === '') return sent
    const asked = soleValue(exchange.query, this.parameter)
    if (sent !== '') return asked === '' ? sent : null
    return asked === null ? null : bytesOf(asked)
  }
}
