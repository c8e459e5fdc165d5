// Computes when the calendar period around a moment ends: an hour, a day, a week from Monday or a month, in a time
// zone, across its changes to and from summer time. Pure; asked once a period.
export const PERIODS = ['hour', 'day', 'week', 'month'] as const
export type Period = (typeof PERIODS)[number]

const DAY_MS = 86_400_000
/** Longer than any such period and shorter than two, even where summer time adds or removes an hour. */
const MOST_MS: Record<Period, number> = {
  hour: 1.6 * 3_600_000,
  day: 1.5 * DAY_MS,
  week: 8 * DAY_MS,
  month: 32 * DAY_MS,
}

/** Returns the first millisecond of the period after the one that contains `atMs` (Unix time). */
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

/** Returns the canonical name of a time zone; null if Intl does not know it. */
export function canonicalZone(timezone: string): string | null {
  try {
    return new Intl.DateTimeFormat('en', { timeZone: timezone }).resolvedOptions().timeZone
  } catch {
    return null
  }
}

/** Maps a moment to a text that is the same for its whole period and differs from that of the neighbouring periods. */
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
    // When summer time ends, one hour occurs twice: it counts as two hours.
    if (period === 'hour') return `${year}-${month}-${day} ${hour} ${timeZoneName}`
    if (period === 'day') return `${year}-${month}-${day}`
    if (period === 'month') return `${year}-${month}`
    // The first of January 1970 was a Thursday.
    return String(Math.floor((Date.UTC(Number(year), Number(month) - 1, Number(day)) / DAY_MS + 3) / 7))
  }
}
