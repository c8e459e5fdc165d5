// Charges on the rate table as policy/rate-limit.ts makes them, for tests that have a table and no gateway.
import { Charge, type Meter } from '../../src/state/charge.js'
import { KeyHash } from '../../src/state/key-hash.js'
import { RateTable } from '../../src/state/rate-table.js'
import type { Segment } from '../../src/state/segment.js'
import { shareOf } from '../../src/state/share.js'

/** A table takes far longer to make than a charge. */
const rowsOf = new WeakMap<Segment, number>()

/** @param limits how many divide the table among them */
export function chargeFor(segment: Segment, key: string, meter: Meter, cost = 1, limit = 'limit', limits = 1): Charge {
  const charge = new Charge()
  const [a, b, c, d] = segment.seed as unknown as [number, number, number, number]
  const name = new KeyHash().seed(a, b, c, d).text(limit)
  const start = new KeyHash().from(name).text(meter.salt)
  const rows = rowsOf.get(segment) ?? new RateTable(segment, 0).narrow.rows
  rowsOf.set(segment, rows)
  const share = shareOf(limits, name, rows, new KeyHash().from(start).text('common'))
  charge.set(meter, meter.cost(cost), share, new KeyHash().from(start).text(key).finish())
  return charge
}
