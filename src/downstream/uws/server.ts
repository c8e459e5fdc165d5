// One worker's uWebSockets.js apps. Makes them, gives the requests they read to the newest phases, counts connections,
// renews certificates, and ends connections. receive() runs per request. How connections get here is in listen.ts,
// which app they get in peers.ts.
import type { HttpRequest, HttpResponse, TemplatedApp } from 'uWebSockets.js'
import type { TlsMaterial } from '../../config/certificates.js'
import type { Deadlines } from '../../exchange/deadlines.js'
import type { Exchange } from '../../exchange/exchange.js'
import type { Rejection } from '../../exchange/outcome.js'
import { canonicalAddress, isTrusted, setAddresses } from '../client-address.js'
import type { HeadRules, Receiver } from '../receiver.js'
import { accept, checkFraming } from './accept.js'
import { guard, isGated, watchConnections } from './gate.js'
import { uWS } from './load.js'
import { type Peer, Peers } from './peers.js'
import { endConnections } from './request.js'
import { TlsApps } from './tls.js'

declare module 'uWebSockets.js' {
  interface HttpResponse {
    /** PEM; '' where the client has shown none. On apps of SSLApp; in both builds, missing in their types. */
    getX509Certificate(): string
  }
}

export interface ServerParts {
  /** Null: the listener speaks cleartext. */
  readonly certificates: TlsMaterial | null
  /** '1.2' or '1.3'. */
  readonly minTlsVersion: string
  readonly deadlines: Deadlines
  readonly counters: { connectionOpened(): void; connectionClosed(): void }
  readonly log: {
    warn(of: object, text: string): void
    error(of: object, text: string): void
  }
  /** Microseconds on the segment's clock. */
  nowUs(): number
  /** Whether this worker takes one connection more; `connections` are open with it. */
  accepts(connections: number): boolean
  isTrusted(address: string): boolean
}

export class UwsServer {
  readonly peers: Peers
  /** Open connections of clients, without the relay's. */
  connections = 0
  /** Told when the last connection has closed. */
  onEmpty: (() => void) | null = null
  private readonly parts: ServerParts
  private readonly secure: boolean
  private tlsApps: TlsApps | null
  private readonly watch: NodeJS.Timeout
  private receiver: Receiver | null = null

  constructor(parts: ServerParts) {
    const { log, deadlines, certificates, minTlsVersion } = parts
    this.parts = parts
    this.secure = certificates !== null
    this.watch = watchConnections(deadlines, (connections) =>
      log.error(
        { connections },
        'ended connections that nobody read from or was going to answer: a fault, please report it',
      ),
    )
    this.tlsApps = certificates === null ? null : new TlsApps(certificates, minTlsVersion)
    this.peers = new Peers((peer) => this.serve(peer), parts.isTrusted, this.tlsApps?.contexts)
  }

  /** Requests from now on are this receiver's. Call it before the first connection comes. */
  use(receiver: Receiver): void {
    this.receiver = receiver
    this.peers.judgeAnew()
  }

  /** Connections from now on get these. Throws, and changes nothing, when uWS does not take them. */
  useCertificates(certificates: TlsMaterial): void {
    const next = new TlsApps(certificates, this.parts.minTlsVersion)
    this.tlsApps?.release()
    this.tlsApps = next
    this.peers.renew(next.contexts)
  }

  /** Each connection ends with its next response. */
  endConnections(): void {
    endConnections()
  }

  close(): void {
    clearInterval(this.watch)
    this.peers.close()
  }

  private serve(peer: Peer): TemplatedApp {
    const { parts, secure, tlsApps } = this
    const route = (one: TemplatedApp): TemplatedApp =>
      one.any('/*', (res, req) => receive(res, req, peer, secure, this.receiver!, parts))
    // The acceptor's relay speaks cleartext, and has nothing to do where the listener does not.
    const speaksTls = tlsApps !== null && !peer.relayed
    const app = speaksTls ? tlsApps.create(route) : route(uWS.App())
    guard(app, speaksTls, peer.relayed)
    // The relay's own connections are not counted: the acceptor counts those of its clients.
    if (peer.relayed) return app
    app.filter((res, change) => {
      if (Number(change) > 0) {
        this.connections++
        parts.counters.connectionOpened()
        this.peers.opened(peer)
        if (!parts.accepts(this.connections)) res.close()
      } else {
        this.connections--
        parts.counters.connectionClosed()
        this.peers.closed(peer)
        if (this.connections === 0) this.onEmpty?.()
      }
    })
    return app
  }
}

/** uWS's handler of every request. */
export function receive(
  res: HttpResponse,
  req: HttpRequest,
  peer: Peer,
  secure: boolean,
  receiver: Receiver,
  parts: Pick<ServerParts, 'log' | 'nowUs'>,
): void {
  const exchange = take(res, req, parts)
  if (exchange === null) return
  receiver.begin(exchange)
  try {
    exchange.secure = secure
    const refused = check(exchange, res, peer, receiver.heads)
    if (refused === null || !refused.closesConnection || isGated()) receiver.pass(exchange, refused)
    else refuseLater(exchange, receiver, refused)
  } catch (error) {
    exchange.crash(error)
  }
}

/**
 * Without a gate uWS goes on with the next request in the same bytes, even behind a response that ends the connection.
 * So where the framing is in doubt, the refusal waits for the next turn: uWS closes a connection whose client sends
 * more before it has its response.
 */
function refuseLater(exchange: Exchange, receiver: Receiver, refused: Rejection): void {
  exchange.downstream.watch()
  setImmediate(() => {
    if (exchange.concluded) return
    try {
      receiver.pass(exchange, refused)
    } catch (error) {
      exchange.crash(error)
    }
  })
}

/** Null: reading the request threw an exception, and its connection is closed. */
function take(res: HttpResponse, req: HttpRequest, parts: Pick<ServerParts, 'log' | 'nowUs'>): Exchange | null {
  try {
    return accept(res, req, parts.nowUs())
  } catch (error) {
    parts.log.error({ err: error }, 'exception while a request was read')
    res.close()
    return null
  }
}

/** Who the client is, and what is wrong with the request's head. */
function check(exchange: Exchange, res: HttpResponse, peer: Peer, heads: HeadRules): Rejection | null {
  const { table, certificates } = heads
  if (peer.relayed) exchange.isHttp10 = true
  if (peer.address !== '') setAddresses(exchange, peer.address, peer.trusted, table.trustedProxies)
  else {
    const address = addressOf(res, peer.relayed)
    setAddresses(exchange, address, isTrusted(address, table.trustedProxies), table.trustedProxies)
  }
  const refused = checkFraming(exchange, table)
  if (refused !== null || certificates === null) return refused
  return certificates.read(exchange, res.getX509Certificate())
}

const decoder = new TextDecoder('latin1')

/** uWS writes IPv6 in full. */
function addressOf(res: HttpResponse, relayed: boolean): string {
  return canonicalAddress(decoder.decode(relayed ? res.getProxiedRemoteAddressAsText() : res.getRemoteAddressAsText()))
}
