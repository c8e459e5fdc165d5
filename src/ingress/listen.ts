// How connections reach a worker's uWS app: the native acceptor on the listening socket that all workers inherit from the primary or,
// where there is no addon, uWS's own listener (SO_REUSEPORT, so each worker has a queue that dies with it). Knows nothing of requests.
import type { TemplatedApp } from 'uWebSockets.js'
import { native } from '../../native/index.js'
import type { Settings } from '../config/settings.js'
import type { Peers } from './peers.js'
import { uWS } from './uws.js'

export interface Listener {
  readonly port: number
  /** No new connections; those that are open stay. */
  close(): void
  /** Answers that have left uWS and not this process yet. */
  onTheirWay(): number
}

export interface InheritedSocket {
  readonly fd: number
  readonly port: number
  /** Open connections of every worker, in the segment: the acceptor leaves a new one to whoever has fewest. */
  readonly counts: Int32Array
  readonly self: number
  /** What it counts of connections that it turns away; in the segment, too. */
  readonly tallies: Float64Array
  /** Connections by client address, of every worker. */
  readonly addresses: { readonly places: Int32Array; readonly seed: number }
  readonly settings: Pick<Settings, 'headerTimeoutMs' | 'proxyProtocol' | 'maxConnections' | 'maxConnectionsPerAddress'>
  readonly onError: (code: string) => void
}

/** In `tallies`, as the acceptor has it: over maxConnections. */
const NO_ROOM = 2

export function listenInherited(peers: Peers, socket: InheritedSocket): Listener {
  const { settings, addresses, tallies } = socket
  peers.places = addresses.places
  const acceptor = native!.accept({
    fd: socket.fd,
    counts: socket.counts,
    self: socket.self,
    onConnection: (fd, address, relayed, announced, place) => {
      if (relayed) peers.relayed.adoptSocket(fd)
      else if (!peers.adopt(fd, address, announced, place)) {
        native!.closeFd(fd)
        tallies[NO_ROOM]!++
      }
    },
    door: {
      headTimeoutMs: settings.headerTimeoutMs,
      tallies,
      isTrusted: peers.isTrusted,
      proxyProtocol: settings.proxyProtocol === 'on',
      maxConnections: settings.maxConnections,
      maxPerAddress: settings.maxConnectionsPerAddress,
      places: addresses.places,
      addressSeed: addresses.seed,
    },
    onError: socket.onError,
  })
  return { port: socket.port, close: () => acceptor.close(), onTheirWay: () => acceptor.relays() }
}

export function listenShared(app: TemplatedApp, host: string, port: number): Promise<Listener> {
  return new Promise((resolve, reject) => {
    app.listen(host, port, (socket) => {
      if (socket === false) return reject(new Error(`cannot listen on ${host}:${port}`))
      resolve({
        port: uWS.us_socket_local_port(socket as never),
        close: () => uWS.us_listen_socket_close(socket),
        onTheirWay: () => 0,
      })
    })
  })
}
