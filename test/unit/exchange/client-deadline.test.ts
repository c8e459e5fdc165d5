// The fields in which a client says how long it waits, and what is left of that.
import { describe, expect, test } from 'vitest'
import { ClientDeadline, grpcTimeout, grpcTimeoutField, timeoutMsField } from '../../../src/exchange/client-deadline.js'

describe('x-timeout-ms', () => {
  test.each([
    ['0', 0],
    ['50', 50_000],
    ['9999999999', 9999999999e3],
  ])('%s', (value, us) => expect(timeoutMsField(value)).toBe(us))

  test.each(['', ' 5', '-1', '+1', '1.5', '1e3', '0x10', '50ms', '12345678901', '५'])('%j says nothing', (value) =>
    expect(timeoutMsField(value)).toBe(-1),
  )
})

describe('grpc-timeout', () => {
  test.each([
    ['1H', 3600e6],
    ['2M', 120e6],
    ['3S', 3e6],
    ['50m', 50_000],
    ['700u', 700],
    ['2000n', 2],
    ['99999999H', 99_999_999 * 3600e6],
  ])('%s', (value, us) => expect(grpcTimeoutField(value)).toBeCloseTo(us, 3))

  test.each(['', '5', 'm', '5s', '5h', '123456789m', '-1m', '1.5S', '5 m', '5mm'])('%j says nothing', (value) =>
    expect(grpcTimeoutField(value)).toBe(-1),
  )

  test.each([
    [0, '0m'],
    [1500, '1500m'],
    [99_999_999, '99999999m'],
    [100_000_000, '100000S'],
    [99_999_999_999, '99999999S'],
    [100_000_000_000, '27777H'],
    [Number.MAX_SAFE_INTEGER, '99999999H'],
  ])('of %i ms is written %s', (ms, value) => expect(grpcTimeout(ms)).toBe(value))
})

describe('a deadline', () => {
  test('is that of the earliest field; one that says nothing leaves the others', () => {
    const first = ClientDeadline.earlier(null, 1000, 500)
    expect(first?.untilUs).toBe(1500)
    expect(ClientDeadline.earlier(first, 1000, 600)).toBe(first)
    expect(ClientDeadline.earlier(first, 1000, 400)?.untilUs).toBe(1400)
    expect(ClientDeadline.earlier(first, 1000, -1)).toBe(first)
    expect(ClientDeadline.earlier(null, 1000, -1)).toBeNull()
  })

  test('leaves the service whole milliseconds, no more than its own timeouts do', () => {
    const deadline = new ClientDeadline(10_000_000)
    expect(deadline.begin(4_000_500, Number.POSITIVE_INFINITY)).toBe(true)
    expect(deadline.leftMs).toBe(5999)
    expect(deadline.begin(4_000_500, 2_000_999)).toBe(true)
    expect(deadline.leftMs).toBe(2000)
  })

  test('leaves an attempt beside another one less', () => {
    const deadline = new ClientDeadline(10_000_000)
    deadline.begin(4_000_000, Number.POSITIVE_INFINITY)
    deadline.beginAnother(4_100_500)
    expect(deadline.leftMs).toBe(5899)
    deadline.beginAnother(11_000_000)
    expect(deadline.leftMs).toBe(1)
  })

  test('is too late for an attempt when less than a millisecond is left', () => {
    const deadline = new ClientDeadline(10_000_000)
    expect(deadline.begin(9_999_000, Number.POSITIVE_INFINITY)).toBe(true)
    expect(deadline.begin(9_999_001, Number.POSITIVE_INFINITY)).toBe(false)
    expect(deadline.begin(11_000_000, Number.POSITIVE_INFINITY)).toBe(false)
  })
})
