import { describe, expect, it } from 'vitest'
import { canonicalZone, nextPeriodStartMs, type Period } from '../../../src/config/calendar.js'

const next = (period: Period, timezone: string, at: string): string =>
  new Date(nextPeriodStartMs(period, timezone, Date.parse(at))).toISOString()

describe('the period that a moment is in ends', () => {
  it.each<[Period, string, string, string]>([
    ['hour', 'UTC', '2026-11-21T15:59:59.999Z', '2026-11-21T16:00:00.000Z'],
    ['hour', 'UTC', '2026-11-21T16:00:00.000Z', '2026-11-21T17:00:00.000Z'],
    ['hour', 'Asia/Kolkata', '2026-11-21T15:45:00Z', '2026-11-21T16:30:00.000Z'],
    ['day', 'UTC', '2026-12-31T23:59:59.999Z', '2027-01-01T00:00:00.000Z'],
    ['day', 'Europe/Berlin', '2026-11-21T12:00:00Z', '2026-11-21T23:00:00.000Z'],
    ['day', 'America/New_York', '2026-11-22T04:59:59Z', '2026-11-22T05:00:00.000Z'],
    ['week', 'UTC', '2026-11-21T12:00:00Z', '2026-11-23T00:00:00.000Z'],
    ['week', 'UTC', '2026-11-23T00:00:00Z', '2026-11-30T00:00:00.000Z'],
    ['month', 'UTC', '2028-02-10T00:00:00Z', '2028-03-01T00:00:00.000Z'],
    ['month', 'Europe/Berlin', '2026-10-31T22:59:59Z', '2026-10-31T23:00:00.000Z'],
    ['month', 'Pacific/Auckland', '2026-12-31T12:00:00Z', '2027-01-31T11:00:00.000Z'],
  ])('%s, %s, %s', (period, timezone, at, wanted) => {
    expect(next(period, timezone, at)).toBe(wanted)
  })

  it.each<[string, Period, string, string, string]>([
    ['a day of 23 hours', 'day', 'Europe/Berlin', '2026-03-28T23:00:00Z', '2026-03-29T22:00:00.000Z'],
    ['a day of 25 hours', 'day', 'Europe/Berlin', '2026-10-24T22:00:00Z', '2026-10-25T23:00:00.000Z'],
    [
      'a day that begins at one, for there is no midnight',
      'day',
      'Africa/Cairo',
      '2026-04-23T12:00:00Z',
      '2026-04-23T22:00:00.000Z',
    ],
    ['the hour that comes twice, once', 'hour', 'Europe/Berlin', '2026-10-25T00:30:00Z', '2026-10-25T01:00:00.000Z'],
    ['… and again', 'hour', 'Europe/Berlin', '2026-10-25T01:00:00Z', '2026-10-25T02:00:00.000Z'],
    ['a change of half an hour', 'hour', 'Australia/Lord_Howe', '2026-04-04T14:45:00Z', '2026-04-04T15:00:00.000Z'],
    ['a week with such a day', 'week', 'Europe/Berlin', '2026-10-20T00:00:00Z', '2026-10-25T23:00:00.000Z'],
    ['a month with such a day', 'month', 'Europe/Berlin', '2026-10-01T00:00:00Z', '2026-10-31T23:00:00.000Z'],
    ['a day that a zone skipped', 'day', 'Pacific/Apia', '2011-12-30T09:00:00Z', '2011-12-30T10:00:00.000Z'],
  ])('with summer time: %s', (_, period, timezone, at, wanted) => {
    expect(next(period, timezone, at)).toBe(wanted)
  })
})

it('knows zones by any of their spellings', () => {
  expect(canonicalZone('europe/berlin')).toBe('Europe/Berlin')
  expect(canonicalZone('Mars/Olympus')).toBeNull()
})
