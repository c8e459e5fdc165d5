// Whose connection is it? uWS tells the address of a request's other end by a system call and a buffer made for it, per request, and has no
// place to keep anything per connection. The acceptor is told once, when it accepts. So each address gets a uWS app of its own as long as
// it has connections, and the app's handlers know whom they serve. Where these run out, or uWS accepts by itself, uWS is asked.
import type { TemplatedApp } from 'uWebSockets.js'

/** The other end of connections: whom an app serves. */
export interface Peer {
  /** '' where the app serves anyone. */
  address: string
  /** The address is one of a trusted proxy. */
  trusted: boolean
  connections: number
}

interface Slot extends Peer {
  readonly app: TemplatedApp
}

/** Addresses with connections at the same time that are remembered, per worker. An app takes some kilobytes. */
const MAX_ADDRESSES = 128

export class Peers {
  /** For anyone. */
  readonly anyone: TemplatedApp
  private readonly create: (peer: Peer) => TemplatedApp
  private readonly isTrusted: (address: string) => boolean
  private readonly slots: Slot[] = []
  private readonly byAddress = new Map<string, Slot>()
  /** Slots whose last connection is gone. They keep their address until another one needs a slot. */
  private readonly vacant = new Set<Slot>()

  constructor(create: (peer: Peer) => TemplatedApp, isTrusted: (address: string) => boolean) {
    this.create = create
    this.isTrusted = isTrusted
    this.anyone = create({ address: '', trusted: false, connections: 0 })
  }

  adopt(fd: number, address: string): void {
    const slot = this.byAddress.get(address) ?? this.take(address)
    if (slot === null) this.anyone.adoptSocket(fd)
    else slot.app.adoptSocket(fd)
  }

  opened(peer: Peer): void {
    if (peer.connections++ === 0) this.vacant.delete(peer as Slot)
  }

  closed(peer: Peer): void {
    if (--peer.connections === 0 && peer.address !== '') this.vacant.add(peer as Slot)
  }

  /** The list of trusted proxies is another one. */
  judgeAnew(): void {
    for (const slot of this.slots) slot.trusted = this.isTrusted(slot.address)
  }

  close(): void {
    this.anyone.close()
    for (const { app } of this.slots) app.close()
  }

  private take(address: string): Slot | null {
    if (address === '') return null
    let slot: Slot
    if (this.slots.length < MAX_ADDRESSES) {
      const peer: Peer = { address, trusted: false, connections: 0 }
      slot = Object.assign(peer, { app: this.create(peer) })
      this.slots.push(slot)
    } else {
      const [free] = this.vacant
      if (free === undefined) return null
      slot = free
      this.byAddress.delete(slot.address)
    }
    slot.address = address
    slot.trusted = this.isTrusted(address)
    this.byAddress.set(address, slot)
    return slot
  }
}
