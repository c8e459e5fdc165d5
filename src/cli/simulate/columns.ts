// Aligned columns for a terminal. Pure.

export interface Column {
  readonly head: string
  /** Numbers end at the same column. */
  readonly right?: boolean
}

/** Columns that are empty in all rows are left out. Lines begin with two blanks. */
export function columns(heads: readonly Column[], rows: readonly (readonly string[])[]): string[] {
  const shown = heads
    .map((column, at) => ({ ...column, at }))
    .filter(({ at }) => rows.some((row) => (row[at] ?? '') !== ''))
  const widths = shown.map(({ head, at }) => Math.max(head.length, ...rows.map((row) => (row[at] ?? '').length)))
  const line = (cells: readonly string[]): string =>
    `  ${cells
      .map((cell, i) => (shown[i]?.right ? cell.padStart(widths[i] as number) : cell.padEnd(widths[i] as number)))
      .join('  ')
      .trimEnd()}`
  return [line(shown.map(({ head }) => head)), ...rows.map((row) => line(shown.map(({ at }) => row[at] ?? '')))]
}

/** `12,345` */
export function grouped(number: number): string {
  return String(number).replace(/\B(?=(\d{3})+$)/g, ',')
}

/** `1 line`, `12,345 lines` */
export function count(number: number, what: string): string {
  return `${grouped(number)} ${what}${number === 1 ? '' : 's'}`
}

/** `12,345`, or `12,345 → 0` where the sides differ; '' where both have none. */
export function pair([left, right]: readonly [number, number]): string {
  if (left === right) return left === 0 ? '' : grouped(left)
  return `${grouped(left)} → ${grouped(right)}`
}

/** `1.2 %` */
export function percent(part: number, whole: number): string {
  return whole === 0 ? '0 %' : `${Number(((100 * part) / whole).toPrecision(3))} %`
}
