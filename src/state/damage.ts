// What tables say and check when they take over what an earlier run has left: whatever no run can have written was
// damaged, and is dropped. In the primary, at start.

/** For the log. */
export function damagedRows(count: number): string {
  return count > 0 ? ` (${count} damaged ones dropped)` : ''
}

/** Whether a gateway may have counted to it. */
function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= 2 ** 50
}

/** Counts that no gateway can have counted begin anew. */
export function mendCounts(counts: Float64Array): void {
  for (const [at, count] of counts.entries()) if (!isCount(count)) counts[at] = 0
}
