// Everything that may happen to a gateway, under some 2,000 requests a second on kept and fresh connections, each
// accounted for.
import { test } from 'vitest'
import {
  killedPrimary,
  killedWorker,
  passedCeilings,
  reloads,
  rollingRestarts,
  stopped,
  takeovers,
} from '../support/chaos.js'

const PER_SECOND = 2000

test('50 reloads in 30 s, half of them broken, fail no request and change no limit', (context) =>
  reloads(context, 50, 30, PER_SECOND))

test('rolling restarts fail no request and change no limit', (context) => rollingRestarts(context, 5, PER_SECOND))

test('killed workers take the requests on their connections with them, and no others', (context) =>
  killedWorker(context, 5, PER_SECOND))

test('workers that pass their memory ceiling are replaced, which fails no request and changes no limit', (context) =>
  passedCeilings(context, 4, PER_SECOND))

test('a killed primary costs no request that was let in, and no quota', (context) => killedPrimary(context, PER_SECOND))

test('a takeover fails no request and carries limits and breakers over', (context) => takeovers(context, 4, PER_SECOND))

test('a stop fails no request that was let in', (context) => stopped(context, PER_SECOND))
