// How connections reach a worker's uWS app: the native acceptor on the listening socket that all workers inherit from the primary or,
// where there is no addon, uWS's own listener (SO_REUSEPORT, so each worker has a queue that dies with it). Knows nothing of requests.
import type { TemplatedApp } from 'uWebSockets.js'
import { type Door, native } from '../../native/index.js'
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
  readonly door: Door
  readonly onError: (code: string) => void
}

export function listenInherited(peers: Peers, socket: InheritedSocket): Listener {
  const acceptor = native!.accept({
    fd: socket.fd,
    counts: socket.counts,
    self: socket.self,
    onConnection: (fd, address, relayed, announced) => {
      if (relayed) peers.relayed.adoptSocket(fd)
      else if (!peers.adopt(fd, address, announced)) native!.closeFd(fd)
    },
    door: socket.door,
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
