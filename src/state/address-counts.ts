// How many connections each client address has, over all workers, for TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS. A worker's
// acceptor counts a connection up, and the worker counts it down when it ends (native/src/address_counts.h says how the
// table lies). Nothing here runs per request.
//
//   section `addresses`   empty where the setting is 0; else 128 KiB a worker: a hash table of its connections'
//                         addresses
import type { LiveSection, Segment } from './segment.js'

/** Int32 in a worker's block: kAddressBlockInts of the addon. */
const ADDRESS_PLACES = 32_768

export const addressesSection: LiveSection<{ readonly workers: number; readonly countsAddresses?: boolean }> = {
  name: 'addresses',
  kept: false,
  bytes: ({ workers, countsAddresses = false }) => (countsAddresses ? workers * ADDRESS_PLACES * 4 : 0),
  release: (segment, slot) => new AddressCounts(segment).release(slot),
}

export class AddressCounts {
  /** The blocks of all workers; empty where no address is counted. */
  readonly places: Int32Array
  /** For the hashes of addresses: the same in every process. */
  readonly seed: number

  constructor(segment: Segment) {
    const { buffer, offset, bytes } = segment.section(addressesSection.name)
    this.places = new Int32Array(buffer, offset, bytes / 4)
    this.seed = (segment.seed[0]! >>> 0) * 2 ** 21 + (segment.seed[1]! >>> 11)
  }

  /** Primary, when a worker is gone: its connections went with it. */
  release(worker: number): void {
    this.places.fill(0, worker * ADDRESS_PLACES, (worker + 1) * ADDRESS_PLACES)
  }
}
