import { expect, test } from 'vitest'
import { connectionOptions, isHopByHop } from '../../../src/exchange/connection-options.js'

test.each<[value: string | string[] | undefined, options: string[]]>([
  [undefined, []],
  ['', []],
  ['close', ['close']],
  ['Keep-Alive', ['keep-alive']],
  [' X-One ,,\tx-two\t, X-ONE', ['x-one', 'x-two']],
  [
    ['close', 'X-One, keep-alive'],
    ['close', 'x-one', 'keep-alive'],
  ],
])('Connection %j lists %j', (value, options) => {
  expect([...connectionOptions(value)]).toEqual(options)
})

test('a field stays on its hop by its name, or because one of several Connection fields lists it', () => {
  const options = connectionOptions(['close', 'x-one'])
  expect(['te', 'x-one', 'x-on', 'x-two'].map((name) => isHopByHop(name, options))).toEqual([true, true, false, false])
})
