// Whose connection is it? uWS tells the address of a request's other end by a system call and a buffer made for it, per
// request, and has no place to keep anything per connection. The acceptor is told once, when it accepts. So each
// address gets a uWS app of its own as long as it has connections, and the app's handlers know whom they serve. Where
// these run out, or uWS accepts by itself, uWS is asked. What the acceptor relays (HTTP/1.0) is one app's for all:
// there each request stands behind a PROXY header, which uWS reads.
import type { TemplatedApp } from 'uWebSockets.js'

/** The other end of connections: whom an app serves. */
export interface Peer {
  /** '' where the app serves anyone. */
  address: string
  /** The address is one of a trusted proxy. */
  trusted: boolean
  /** Connections come from the acceptor's relay: HTTP/1.0, and uWS was told the address by a PROXY header. */
  readonly relayed: boolean
  connections: number
  /** Where the address is counted (Peers.places), and how many of the connections are; -1: nowhere. */
  place: number
  counted: number
}

const NOBODY: Peer = { address: '', trusted: false, relayed: false, connections: 0, place: -1, counted: 0 }

interface Slot extends Peer {
  readonly app: TemplatedApp
}

/** Addresses that are remembered, per worker. An app takes some 30 KB. */
const MAX_ADDRESSES = 128
/** Where a proxy has announced them, uWS cannot be asked: so many may have connections at the same time. */
const MAX_ANNOUNCED = 4096

export class Peers {
  /** For anyone. */
  anyone: TemplatedApp
  /** For the acceptor's relay. */
  readonly relayed: TemplatedApp
  private readonly create: (peer: Peer) => TemplatedApp
  readonly isTrusted: (address: string) => boolean
  /** Told whose address has no app of its own any more; '': nobody's has. The acceptor does not ask us each time. */
  forget: (address: string) => void = () => {}
  /** Connections by address, over all workers: the acceptor counts up, we count down. */
  places: Int32Array | null = null
  private readonly slots: Slot[] = []
  private readonly byAddress = new Map<string, Slot>()
  /** Slots whose last connection is gone. They keep their address until another one needs a slot. */
  private readonly vacant = new Set<Slot>()
  /** Apps that get no more connections. uWS frees none, also when it is closed. */
  private readonly former: TemplatedApp[] = []
  /** How many times the usual an app takes. */
  private shares: number

  constructor(create: (peer: Peer) => TemplatedApp, isTrusted: (address: string) => boolean, shares = 1) {
    this.create = create
    this.isTrusted = isTrusted
    this.anyone = create({ ...NOBODY })
    this.relayed = create({ ...NOBODY, relayed: true })
    this.shares = shares
  }

  /** Connections from now on get apps that are made anew. Those that are open keep theirs. */
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
   * `announced`: the address is not that of the socket. `place`: where it is counted. Returns the app that has it now;
   * null: there is no room for one more announced address.
   */
  adopt(fd: number, address: string, announced: boolean, place: number): TemplatedApp | null {
    const slot = this.byAddress.get(address) ?? this.take(address, announced ? MAX_ANNOUNCED : MAX_ADDRESSES)
    if (slot === null) {
      // Nobody would know whom to take off the count.
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

  /** The list of trusted proxies is another one. */
  judgeAnew(): void {
    for (const slot of this.slots) slot.trusted = this.isTrusted(slot.address)
  }

  close(): void {
    this.anyone.close()
    this.relayed.close()
    for (const { app } of this.slots) app.close()
    for (const app of this.former) app.close()
  }

  /** Null: its connections are for the app that serves anyone. */
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
        // Over TLS it reads its certificates, and descriptors may have run out.
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
