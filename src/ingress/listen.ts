// How connections reach a worker's uWS app: the native acceptor on the listening socket that all workers inherit from the primary or,
// where there is no addon, uWS's own listener (SO_REUSEPORT, so each worker has a queue that dies with it). Knows nothing of requests.
import type { TemplatedApp } from 'uWebSockets.js'
import { native } from '../../native/index.js'
import type { Peers } from './peers.js'
import { uWS } from './uws.js'

export interface Listener {
  readonly port: number
  /**
   * No new connections; those that are open stay. Resolves when the last has come.
   * @param last nobody else accepts from the socket: whoever is in its queue, or about to be, is still let in
   */
  close(last: boolean): Promise<void>
}

/** Who has shaken hands sends the request within a round trip, and gets into the queue with it. */
const LAST_COMERS_MS = 200

export interface InheritedSocket {
  readonly fd: number
  readonly port: number
  /** Open connections of every worker, in the segment: the acceptor leaves a new one to whoever has fewest. */
  readonly counts: Int32Array
  readonly self: number
  readonly onError: (code: string) => void
}

export function listenInherited(peers: Peers, socket: InheritedSocket): Listener {
  const acceptor = native!.accept({
    fd: socket.fd,
    counts: socket.counts,
    self: socket.self,
    onConnection: (fd, address) => peers.adopt(fd, address),
    onError: socket.onError,
  })
  return {
    port: socket.port,
    async close(last) {
      if (last) {
        acceptor.refuseNew()
        await new Promise((resolve) => setTimeout(resolve, LAST_COMERS_MS))
        acceptor.takeAll()
      }
      acceptor.close()
    },
  }
}

export function listenShared(app: TemplatedApp, host: string, port: number): Promise<Listener> {
  return new Promise((resolve, reject) => {
    app.listen(host, port, (socket) => {
      if (socket === false) return reject(new Error(`cannot listen on ${host}:${port}`))
      const close = async (): Promise<void> => uWS.us_listen_socket_close(socket)
      resolve({ port: uWS.us_socket_local_port(socket as never), close })
    })
  })
}
