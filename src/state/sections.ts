// Every table of the segment. A new table adds its section to this list; no other file has to know of it. The tables
// take over the state of an earlier run in this order. `rates` is first: it frees the owner indexes of dead workers
// (owners.ts), and the others ask which workers still live.
import { addressesSection } from './address-counts.js'
import { branchesSection } from './branch-counts.js'
import { breakersSection } from './breaker-table.js'
import { bulkheadsSection } from './bulkhead-table.js'
import { countersSection } from './counters.js'
import { drainsSection } from './drain-table.js'
import { endpointsSection } from './endpoint-table.js'
import { inFlightSection } from './in-flight-table.js'
import { ratesSection } from './rates-section.js'
import { replaysSection } from './replay-table.js'
import type { SpecOf } from './segment.js'
import { workersSection } from './worker-table.js'

export const SECTIONS = [
  ratesSection,
  breakersSection,
  replaysSection,
  drainsSection,
  endpointsSection,
  bulkheadsSection,
  inFlightSection,
  workersSection,
  countersSection,
  addressesSection,
  branchesSection,
] as const

/** How large the tables are: all that their sections want to know. */
export type SegmentSpec = SpecOf<(typeof SECTIONS)[number]>
