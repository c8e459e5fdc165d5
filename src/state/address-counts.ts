// How many connections each client address has, over all workers, for TIDEGATE_MAX_CONNECTIONS_PER_ADDRESS. The acceptor counts up and looks it up
// (native/src/address_counts.h says how it lies); who ends a connection counts down. Nothing here runs per request.
import type { LiveSection, Segment } from './segment.js'

/** A worker's block: kAddressBlockInts of the addon. */
const ADDRESS_PLACES = 32_768

export const addressesSection: LiveSection<{ readonly workers: number; readonly countsAddresses?: boolean }> = {
  name: 'addresses',
  kept: false,
  bytes: ({ workers, countsAddresses = false }) => (countsAddresses ? workers * ADDRESS_PLACES * 4 : 0),
  release: (segment, slot) => new AddressCounts(segment).release(slot),
}

export class AddressCounts {
  /** Of all workers; empty where no address is counted. */
  readonly places: Int32Array
  /** Of the hashes, the same in every process. */
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
