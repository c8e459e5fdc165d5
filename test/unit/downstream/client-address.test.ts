import ipaddr from 'ipaddr.js'
import { describe, expect, test } from 'vitest'
import { type AddressRange, forwardedAddress, isTrusted } from '../../../src/downstream/client-address.js'

const ranges: AddressRange[] = [ipaddr.parseCIDR('10.0.0.0/8'), ipaddr.parseCIDR('fd00::/8')]

describe('an address is trusted', () => {
  test.each([
    ['10.1.2.3', true],
    ['11.1.2.3', false],
    ['::ffff:10.1.2.3', true],
    ['fd12::1', true],
    ['fe80::1', false],
    ['unknown', false],
    ['', false],
  ])('%s: %s', (address, trusted) => {
    expect(isTrusted(address, ranges)).toBe(trusted)
  })
})

describe('behind trusted proxies the caller is', () => {
  test.each([
    ['the peer, where nothing is said', '', '10.0.0.1'],
    ['the only address named', '203.0.113.7', '203.0.113.7'],
    ['the right-most that is no proxy, whatever it claims itself', '1.1.1.1, 203.0.113.7, 10.0.0.9', '203.0.113.7'],
    ['the left-most, where all are proxies', '10.0.0.7, 10.0.0.8', '10.0.0.7'],
    ['the last one before what is no address', '203.0.113.7, _hidden, 10.0.0.9', '10.0.0.9'],
    ['an IPv4-mapped address as IPv4', '::ffff:203.0.113.7', '203.0.113.7'],
    ['an IPv6 address', '2001:db8::1,10.0.0.2', '2001:db8::1'],
  ])('%s', (_, forwardedFor, caller) => {
    expect(forwardedAddress('10.0.0.1', forwardedFor, ranges)).toBe(caller)
  })
})
