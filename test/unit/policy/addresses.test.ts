import ipaddr from 'ipaddr.js'
import { describe, expect, test } from 'vitest'
import type { AddressRange } from '../../../src/config/compile.js'
import { AddressLists } from '../../../src/policy/addresses.js'

const ranges = (...texts: string[]): AddressRange[] => texts.map((text) => ipaddr.parseCIDR(text))

describe('lists of addresses', () => {
  test('let in what allow holds, but for what deny does', () => {
    const lists = new AddressLists({
      allow: ranges('10.0.0.0/8', '2001:db8::/32', '192.0.2.7/32'),
      deny: ranges('10.1.0.0/16', '2001:db8:bad::/48'),
    })
    for (const address of ['10.0.0.1', '10.255.255.255', '192.0.2.7', '2001:db8::1', '2001:0DB8:0::A']) {
      expect(lists.admit(address), address).toBe(true)
    }
    for (const address of [
      '10.1.2.3',
      '9.255.255.255',
      '11.0.0.0',
      '192.0.2.6',
      '2001:db9::1',
      '2001:db8:bad::1',
      '',
    ]) {
      expect(lists.admit(address), address).toBe(false)
    }
  })

  test('without allow let in all that deny does not hold; what is no address is not let in', () => {
    const lists = new AddressLists({ allow: null, deny: ranges('0.0.0.0/1', '::1/128') })
    expect(lists.admit('128.0.0.1')).toBe(true)
    expect(lists.admit('::2')).toBe(true)
    expect(lists.admit('127.255.255.255')).toBe(false)
    expect(lists.admit('::1')).toBe(false)
    expect(lists.admit('unknown')).toBe(false)
  })

  test('take an IPv4 address in IPv6 clothes for what it is, on either side', () => {
    const lists = new AddressLists({ allow: ranges('::ffff:10.0.0.0/104', '192.0.2.0/24'), deny: [] })
    expect(lists.admit('10.9.9.9')).toBe(true)
    expect(lists.admit('::ffff:192.0.2.1')).toBe(true)
    expect(lists.admit('::ffff:11.0.0.1')).toBe(false)
    // The same bits elsewhere in IPv6 are another address.
    expect(lists.admit('::c000:201')).toBe(false)
  })

  test('say about every address what ipaddr.js says, also when asked twice', () => {
    const list = ranges('0.0.0.0/0', '172.16.0.0/12', '203.0.113.128/25').slice(1)
    const lists = new AddressLists({ allow: list, deny: [] })
    for (let i = 0; i < 2; i++) {
      for (let n = 0; n < 4096; n++) {
        const address = `${[172, 203, 10][n % 3]}.${[16, 31, 32, 0][n % 4]}.${[113, 0][n % 2]}.${n % 256}`
        const parsed = ipaddr.IPv4.parse(address)
        expect(lists.admit(address), address).toBe(list.some((range) => parsed.match(range as [ipaddr.IPv4, number])))
      }
    }
  })
})
