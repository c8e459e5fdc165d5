// Which client address a connection comes from. uWS tells it by a system call and a new buffer per request, and has no
// place to keep anything per connection. The acceptor learns it once, when it accepts. So each address gets a uWS app
// of its own while it has connections, and the app's handlers know their address. Where these apps run out, or uWS
// accepts by itself, uWS is asked. One app serves all connections that the acceptor relays (HTTP/1.0): the relay writes
// a PROXY header before each request, which uWS reads.
import type { TemplatedApp } from 'uWebSockets.js'

/** The client side of an app's connections. */
export interface Peer {
  /** '' where the app serves any address. */
  address: string
  /** The address is one of a trusted proxy. */
  trusted: boolean
  /**
   * The acceptor's relay opens the connections: the client speaks HTTP/1.0, and a PROXY header has told uWS its
   * address.
   */
  readonly relayed: boolean
  connections: number
  /** Where the address is counted (Peers.places; -1: nowhere), and how many of its connections are. */
  place: number
  counted: number
}

const NOBODY: Peer = { address: '', trusted: false, relayed: false, connections: 0, place: -1, counted: 0 }

interface Slot extends Peer {
  readonly app: TemplatedApp
}

/** Addresses that are remembered, per worker. An app takes some 30 KB. */
const MAX_ADDRESSES = 128
/** uWS cannot tell an address that a proxy has announced: this many of them may have connections at the same time. */
const MAX_ANNOUNCED = 4096

export class Peers {
  /** Serves any address. */
  anyone: TemplatedApp
  /** Serves the acceptor's relay. */
  readonly relayed: TemplatedApp
  private readonly create: (peer: Peer) => TemplatedApp
  readonly isTrusted: (address: string) => boolean
  /** Tells the acceptor, which remembers, that an address has no app of its own any more; '': no address has. */
  forget: (address: string) => void = () => {}
  /** Connections by address, over all workers: the acceptor counts up, this class counts down. */
  places: Int32Array | null = null
  private readonly slots: Slot[] = []
  private readonly byAddress = new Map<string, Slot>()
  /** Slots whose last connection is gone. They keep their address until another one needs a slot. */
  private readonly vacant = new Set<Slot>()
  /** Apps that get no more connections. uWS frees none, also when it is closed. */
  private readonly former: TemplatedApp[] = []
  /** How many times the usual memory an app takes. */
  private shares: number

  constructor(create: (peer: Peer) => TemplatedApp, isTrusted: (address: string) => boolean, shares = 1) {
    this.create = create
    this.isTrusted = isTrusted
    this.anyone = create({ ...NOBODY })
    this.relayed = create({ ...NOBODY, relayed: true })
    this.shares = shares
  }

  /** New connections get new apps. Open ones keep theirs. */
  renew(shares = 1): void {
    this.former.push(this.anyone, ...this.slots.map(({ app }) => app))
    this.slots.length = 0
    this.byAddress.clear()
    this.vacant.clear()
    this.forget('')
    this.anyone = this.create({ ...NOBODY })
    this.shares = shares
  }

  /**
   * @param announced a proxy has announced the address
   * @param place where the address is counted
   * @returns the app that has the connection now; null where no room is left for an announced address
   */
  adopt(fd: number, address: string, announced: boolean, place: number): TemplatedApp | null {
    const slot = this.byAddress.get(address) ?? this.take(address, announced ? MAX_ANNOUNCED : MAX_ADDRESSES)
    if (slot === null) {
      // When the connection ends nobody would know which count to take it off.
      if (place >= 0) this.places![place]!--
      if (announced) return null
      this.anyone.adoptSocket(fd)
      return this.anyone
    }
    if (place >= 0) {
      slot.place = place
      slot.counted++
    }
    slot.app.adoptSocket(fd)
    return slot.app
  }

  opened(peer: Peer): void {
    if (peer.connections++ === 0) this.vacant.delete(peer as Slot)
  }

  closed(peer: Peer): void {
    if (peer.counted > 0) {
      peer.counted--
      this.places![peer.place]!--
    }
    if (--peer.connections === 0 && this.byAddress.get(peer.address) === peer) this.vacant.add(peer as Slot)
  }

  /** The list of trusted proxies has changed. */
  judgeAnew(): void {
    for (const slot of this.slots) slot.trusted = this.isTrusted(slot.address)
  }

  close(): void {
    this.anyone.close()
    this.relayed.close()
    for (const { app } of this.slots) app.close()
    for (const app of this.former) app.close()
  }

  /** Null: its connections go to the app that serves any address. */
  private take(address: string, most: number): Slot | null {
    if (address === '') return null
    let slot: Slot
    const [free] = this.slots.length < Math.floor(MAX_ADDRESSES / this.shares) ? [] : this.vacant
    if (free !== undefined) {
      slot = free
      this.byAddress.delete(slot.address)
      this.forget(slot.address)
    } else if (this.slots.length < Math.floor(most / this.shares)) {
      const peer: Peer = { ...NOBODY, address }
      let app: TemplatedApp
      try {
        app = this.create(peer)
      } catch {
        // An app over TLS reads its certificates from files, and descriptors may have run out.
        return null
      }
      slot = Object.assign(peer, { app })
      this.slots.push(slot)
    } else {
      return null
    }
    slot.address = address
    slot.trusted = this.isTrusted(address)
    this.byAddress.set(address, slot)
    return slot
  }
}
