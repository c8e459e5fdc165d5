// Endpoints as they are written: which text is one, what it means, and what a wrong one is told.
import { describe, expect, test } from 'vitest'
import { endpointAddress, endpointProblem } from '../../../src/config/endpoint.js'

test.each([
  ['http://h', { origin: 'http://h', authority: 'h', hostname: 'h', socketPath: null }],
  ['HTTP://H:80/', { origin: 'http://h', authority: 'h', hostname: 'h', socketPath: null }],
  [
    'https://[::1]:8443',
    { origin: 'https://[::1]:8443', authority: '[::1]:8443', hostname: '[::1]', socketPath: null },
  ],
  // A host may have that name.
  ['http://unix:9000', { origin: 'http://unix:9000', authority: 'unix:9000', hostname: 'unix', socketPath: null }],
  ...['/run/orders.sock', '/a b?c#d%20é', `/${'a'.repeat(106)}`].map(
    (path) =>
      [
        `unix:${path}`,
        { origin: `unix:${path}`, authority: 'localhost', hostname: 'localhost', socketPath: path },
      ] as const,
  ),
])('%s is one', (text, address) => {
  expect(endpointProblem(text)).toBeNull()
  expect(endpointAddress(text)).toEqual(address)
})

describe('a Unix socket', () => {
  test.each([
    ['unix:///run/o.sock'],
    ['unix://run/o.sock'],
    ['unix//run/o.sock'],
    ['unix@/run/o.sock'],
    ['UNIX:/run/o.sock'],
    ['http://unix:/run/o.sock'],
    ['http://unix:/run/o.sock:/api/'],
    ['http+unix:///run/o.sock'],
    ['/run/o.sock'],
  ])('written %s is told the one spelling', (text) => {
    expect(endpointProblem(text)).toBe('is not how a Unix socket is written: write unix:/run/o.sock')
  })

  test.each([
    ['unix:', 'must have an absolute path behind unix:'],
    ['unix:run/o.sock', 'must have an absolute path behind unix:'],
    ['unix:@orders', 'must be the path of a Unix socket: abstract names are not supported'],
    ['unix:/', 'must be the path of a Unix socket: "/" is a directory'],
    ['unix:/run/', 'must have the shortest spelling of its path: write unix:/run'],
    ['unix:/run/../tmp/./o', 'must have the shortest spelling of its path: write unix:/tmp/o'],
    ['unix:/run/o.sock:/api', `must end with the path of the socket (behind it is "/api"); use the route's rewrite`],
    ['unix:/run/\0', 'must not have control characters in its path'],
    [
      `unix:/${'a'.repeat(107)}`,
      'has a path of 108 bytes: the system takes at most 107 (108 with the zero that ends it)',
    ],
    [
      `unix:/${'é'.repeat(54)}`,
      'has a path of 109 bytes: the system takes at most 107 (108 with the zero that ends it)',
    ],
  ])('%j is none', (text, problem) => {
    expect(endpointProblem(text)).toContain(problem)
  })
})
