// Every table of the segment. A new one adds its section to this list, and is done: nothing else has to know of it. In this order the sections
// lie in memory, and are taken over from an earlier run. `rates` is first: it also holds who owns what (owners.ts), and the others ask
// which workers of the earlier run still live.
import { addressesSection } from './address-counts.js'
import { breakersSection } from './breaker-table.js'
import { countersSection } from './counters.js'
import { healthSection } from './health-table.js'
import { ratesSection } from './rates-section.js'
import { replaysSection } from './replay-table.js'
import type { SpecOf } from './segment.js'
import { workersSection } from './worker-table.js'

export const SECTIONS = [
  ratesSection,
  breakersSection,
  replaysSection,
  healthSection,
  workersSection,
  countersSection,
  addressesSection,
] as const

/** How large the tables are: all that their sections want to know. */
export type SegmentSpec = SpecOf<(typeof SECTIONS)[number]>
