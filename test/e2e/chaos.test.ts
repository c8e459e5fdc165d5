// The short form of test/chaos.
import { test } from 'vitest'
import { killedPrimary, killedWorker, reloads, rollingRestarts, stopped, takeovers } from '../support/chaos.js'

test('reloads fail no request and change no limit', (context) => reloads(context, 8, 1.2, 500))

test('a rolling restart fails no request and changes no limit', (context) => rollingRestarts(context, 1, 500))

test('a killed worker takes the requests on its connections with it, and no others', (context) =>
  killedWorker(context, 1, 500))

test('a killed primary costs no request that was let in, and no quota', (context) => killedPrimary(context, 500))

test('a takeover fails no request and carries limits and breakers over', (context) => takeovers(context, 1, 500))

test('a stop fails no request that was let in', (context) => stopped(context, 500))
