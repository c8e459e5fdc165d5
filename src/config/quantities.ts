// Parses durations, sizes, rates and quotas as people write them. Pure; used only by the schema.
import { PERIODS, type Period } from './calendar.js'

const DURATION_MS = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const
export const DURATION = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/
/** Returns null if the text is not a duration. */
export function durationMs(text: string): number | null {
  const match = DURATION.exec(text)
  if (match === null) return null
  return Math.round(Number(match[1]) * DURATION_MS[match[2] as keyof typeof DURATION_MS])
}

const SIZE_BYTES = { B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40 } as const
export const SIZE = /^(\d+)(B|KiB|MiB|GiB|TiB)?$/
/** Returns null if the text is not a size. Only powers of two: the meaning of 1MB is ambiguous. */
export function sizeBytes(text: string): number | null {
  const match = SIZE.exec(text)
  if (match === null) return null
  return Number(match[1]) * SIZE_BYTES[(match[2] ?? 'B') as keyof typeof SIZE_BYTES]
}

const WINDOW_SECONDS = {
  s: 1,
  second: 1,
  m: 60,
  min: 60,
  minute: 60,
  h: 3600,
  hour: 3600,
  d: 86_400,
  day: 86_400,
} as const
export const RATE = /^(\d+)\/(s|second|m|min|minute|h|hour|d|day)$/
export interface Rate {
  quantity: number
  windowSeconds: number
}
/** Returns null if the text is not a rate. */
export function parseRate(text: string): Rate | null {
  const match = RATE.exec(text)
  if (match === null) return null
  return { quantity: Number(match[1]), windowSeconds: WINDOW_SECONDS[match[2] as keyof typeof WINDOW_SECONDS] }
}

export const QUOTA = /^(\d+)\/(h|hour|d|day|w|week|month)$/
export interface Quota {
  quantity: number
  period: Period
}
/** Returns null if the text is not a quota. */
export function parseQuota(text: string): Quota | null {
  const match = QUOTA.exec(text)
  if (match === null) return null
  return {
    quantity: Number(match[1]),
    period: PERIODS.find((period) => period.startsWith(match[2] as string)) as Period,
  }
}

/** Returns the shortest spelling (`1s`, `500ms`, `2m`), for listings and messages. */
export function formatDuration(ms: number): string {
  if (ms > 0 && ms % 3_600_000 === 0) return `${ms / 3_600_000}h`
  if (ms > 0 && ms % 60_000 === 0) return `${ms / 60_000}m`
  if (ms > 0 && ms % 1000 === 0) return `${ms / 1000}s`
  return `${ms}ms`
}

export function formatBytes(bytes: number): string {
  for (const unit of ['TiB', 'GiB', 'MiB', 'KiB'] as const) {
    if (bytes > 0 && bytes % SIZE_BYTES[unit] === 0) return `${bytes / SIZE_BYTES[unit]}${unit}`
  }
  return `${bytes}B`
}

/** The numbers for `none` (deadlines) and `unlimited` (sizes). */
export const NO_TIMEOUT = 0
export const UNLIMITED_BYTES = Number.MAX_SAFE_INTEGER
