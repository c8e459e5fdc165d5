import { expect, test } from 'vitest'
import { hidden, soleValue, withoutParameter } from '../../../src/config/parameter.js'

const CASES: [query: string, value: string | null, without: string, hidden: string][] = [
  ['', '', '', ''],
  ['a=1', '', 'a=1', 'a=1'],
  ['key=s', 's', '', 'key=***'],
  ['a=1&key=s&b=2', 's', 'a=1&b=2', 'a=1&key=***&b=2'],
  ['key=a%20b%26c', 'a b&c', '', 'key=***'],
  ['key=a+b', 'a b', '', 'key=***'],
  ['key=a=b', 'a=b', '', 'key=***'],
  ['%6Bey=s', 's', '', 'key=***'],
  ['k%65y=s&x', 's', 'x', 'key=***&x'],
  ['key', '', '', 'key=***'],
  ['key=', '', '', 'key=***'],
  ['key=a&key=b', null, '', 'key=***&key=***'],
  ['key=a&%6bey=b', null, '', 'key=***&key=***'],
  ['Key=s&akey=s&keys=s', '', 'Key=s&akey=s&keys=s', 'Key=s&akey=s&keys=s'],
  ['key=%zz', '%zz', '', 'key=***'],
  ['%zz=1&&=', '', '%zz=1&&=', '%zz=1&&='],
]

test.each(CASES)('the key of "%s" is found, taken out and hidden', (query, value, without, shown) => {
  expect(soleValue(query, 'key')).toBe(value)
  expect(withoutParameter(query, 'key')).toBe(without)
  expect(hidden(query, 'key')).toBe(shown)
})
