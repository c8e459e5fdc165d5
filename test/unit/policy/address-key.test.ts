import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import { describe, expect, it } from 'vitest'
import { hashAddress } from '../../../src/policy/address-key.js'
import { KeyHash } from '../../../src/state/key-hash.js'

function key(text: string): string {
  const hash = new KeyHash().seed(1, 2, 3, 4)
  hashAddress(hash, text)
  const { a, b, c, d } = hash.finish()
  return [a, b, c, d].join()
}

describe('an address as a key', () => {
  it.each([
    ['one IPv6 network of 64 bits', '2001:db8:1:2::1', '2001:db8:1:2:ffff:ffff:ffff:ffff'],
    ['IPv6 however it is abbreviated', '2001:db8::1', '2001:0DB8:0000:0000:0000:0000:0000:0001'],
    ['IPv6 with a zone', 'fe80::1%eth0', 'fe80::2'],
    ['IPv6 that ends with dots', '64:ff9b::1.2.3.4', '64:ff9b::102:304'],
    ['an IPv4-mapped address and the IPv4 it is', '::ffff:192.0.2.7', '192.0.2.7'],
    ['an IPv4-mapped address in hex', '0000:0000:0000:0000:0000:ffff:c000:0207', '192.0.2.7'],
    ['IPv4 with zeros in front', '192.0.2.7', '192.000.002.007'],
    ['an address with the gap at its end', '2001:db8:1:2:3::', '2001:db8:1:2::9'],
  ])('takes %s for one', (_, one, other) => {
    expect(key(one)).toBe(key(other))
  })

  it('keeps all others apart', () => {
    const texts = [
      ['192.0.2.7', '192.0.2.8', '::', '::1:0:0:0:0', '2001:db8:1:2::1', '2001:db8:1:3::1', '2001:db8:1::2:1'],
      ['', 'unknown', '1.2.3', '1.2.3.4.5', '1.2.3.256', '1..2.3', '.1.2.3', '1.2.3.', '1:2:3', ':::', '1::2::3'],
      ['g::1', '12345::', '1:2:3:4:5:6:7:8:9', '1:2:3:4:5:6:7:', ':1:2:3:4:5:6:7', '1:2:3:4:5:6:7:1.2.3.4', '::1.2.3'],
      ['1:2:3:4:5:6:7:8::'],
    ].flat()
    expect(new Set(texts.map(key)).size).toBe(texts.length)
  })

  it('reads every IPv6 address as a parser does that makes objects', () => {
    fc.assert(
      fc.property(fc.ipV6(), (text) => {
        // ipaddr.js takes ::192.0.2.1 for ::ffff:192.0.2.1; RFC 4291 has them apart.
        fc.pre(!text.includes('.'))
        const parts = ipaddr.IPv6.parse(text)
        if (parts.isIPv4MappedAddress()) expect(key(text)).toBe(key(parts.toIPv4Address().toString()))
        else {
          expect(key(text)).toBe(key(parts.toFixedLengthString()))
          expect(key(text)).toBe(
            key(
              `${parts.parts
                .slice(0, 4)
                .map((part) => part.toString(16))
                .join(':')}::`,
            ),
          )
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('reads every IPv4 address likewise', () => {
    fc.assert(
      fc.property(fc.ipV4(), fc.ipV4(), (one, other) => {
        expect(key(one) === key(other)).toBe(one === other)
        expect(key(`::ffff:${one}`)).toBe(key(one))
      }),
    )
  })
})
