// How connections reach a worker's uWS app: the native acceptor on the listening socket that all workers inherit from
// the primary or, where there is no addon, uWS's own listener (SO_REUSEPORT, so each worker has a queue that dies with
// it). Knows nothing of requests.
import type { TemplatedApp } from 'uWebSockets.js'
import { native } from '../../../native/index.js'
import type { Settings } from '../../config/settings.js'
import { uWS } from './load.js'
import type { Peers } from './peers.js'

export interface Listener {
  readonly port: number
  /**
   * No new connections; those that are open stay. Resolves when the last has come.
   * @param last nobody else accepts from the socket: whoever is in its queue, or about to be, is still let in
   * @param waitMs for the first request of those who were accepted and have not sent it yet
   */
  close(last: boolean, waitMs: number): Promise<void>
  /** Another configuration has other upstreams: this many client connections are what there are descriptors for. */
  makeRoom(connections: number): void
  /** Answers that have left uWS and not this process yet. */
  onTheirWay(): number
}

/** Who has shaken hands sends the request within a round trip, and gets into the queue with it. */
const LAST_COMERS_MS = 200
/** How often a drain looks whether somebody is still at the acceptor's door. */
const DOOR_LOOK_MS = 20

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
  /** The listener speaks TLS. */
  readonly secure: boolean
  /** What there are descriptors for (worker/descriptors.ts). */
  readonly room: number
  readonly highestFd: number
  /** Requests of HTTP/1.0 are relayed (patches.ts). */
  readonly relays: boolean
  readonly onError: (code: string) => void
  /** A mistake of ours, which costs one connection. */
  readonly onException: (error: unknown) => void
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
      if (relayed) {
        peers.relayed.adoptSocket(fd)
        return undefined
      }
      const app = peers.adopt(fd, address, announced, place)
      if (app === null) {
        native!.closeFd(fd)
        tallies[NO_ROOM]!++
      }
      return app === null || app === peers.anyone ? undefined : app
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
      tls: socket.secure,
      room: socket.room,
      highestFd: socket.highestFd,
      relays: socket.relays,
      onException: socket.onException,
    },
    onError: socket.onError,
  })
  peers.forget = acceptor.forget
  return {
    port: socket.port,
    async close(last, waitMs) {
      if (last) {
        acceptor.refuseNew()
        await new Promise((resolve) => setTimeout(resolve, LAST_COMERS_MS))
        acceptor.takeAll()
      }
      acceptor.close(waitMs)
      while (acceptor.waiting() > 0) await new Promise((resolve) => setTimeout(resolve, DOOR_LOOK_MS))
    },
    makeRoom: acceptor.makeRoom,
    onTheirWay: () => acceptor.relays(),
  }
}

export function listenShared(app: TemplatedApp, host: string, port: number): Promise<Listener> {
  return new Promise((resolve, reject) => {
    app.listen(host, port, (socket) => {
      if (socket === false) return reject(new Error(`cannot listen on ${host}:${port}`))
      resolve({
        port: uWS.us_socket_local_port(socket as never),
        close: async () => uWS.us_listen_socket_close(socket),
        makeRoom: () => {},
        onTheirWay: () => 0,
      })
    })
  })
}
