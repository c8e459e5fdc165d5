// When the calendar period that a moment lies in ends: hours, days, weeks from Monday, and months of a time zone, with its changes to and
// from summer time. Pure; asked once a period.
export const PERIODS = ['hour', 'day', 'week', 'month'] as const
export type Period = (typeof PERIODS)[number]

const DAY_MS = 86_400_000
/** Longer than any such period, and shorter than two: months with the hour that summer time takes or gives. */
const MOST_MS: Record<Period, number> = {
  hour: 1.6 * 3_600_000,
  day: 1.5 * DAY_MS,
  week: 8 * DAY_MS,
  month: 32 * DAY_MS,
}

/** The first millisecond of the period after the one that `atMs` (Unix time) is in. */
export function nextPeriodStartMs(period: Period, timezone: string, atMs: number): number {
  const nameOf = namer(period, timezone)
  const current = nameOf(atMs)
  let before = atMs
  let after = atMs + MOST_MS[period]
  while (after - before > 1) {
    const middle = Math.floor((before + after) / 2)
    if (nameOf(middle) === current) before = middle
    else after = middle
  }
  return after
}

/** null where Intl knows no such zone. Names have many spellings; of each there is one. */
export function canonicalZone(timezone: string): string | null {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: timezone }).resolvedOptions().timeZone
  } catch {
    return null
  }
}

/** Of any moment a text that all moments of its period share, and none of those next to it. */
function namer(period: Period, timezone: string): (ms: number) => string {
  const format = new Intl.DateTimeFormat('en-u-ca-gregory-nu-latn', {
    timeZone: timezone,
    hourCycle: 'h23',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
    hour: 'numeric',
    timeZoneName: 'longOffset',
  })
  return (ms) => {
    const parts = Object.fromEntries(format.formatToParts(ms).map(({ type, value }) => [type, value]))
    const { year, month, day, hour, timeZoneName } = parts as Record<string, string>
    // The hour that comes twice when summer time ends is two hours.
    if (period === 'hour') return `${year}-${month}-${day} ${hour} ${timeZoneName}`
    if (period === 'day') return `${year}-${month}-${day}`
    if (period === 'month') return `${year}-${month}`
    // The first of January 1970 was a Thursday.
    return String(Math.floor((Date.UTC(Number(year), Number(month) - 1, Number(day)) / DAY_MS + 3) / 7))
  }
}
