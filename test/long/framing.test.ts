// Every form of test/e2e/framing.test.ts cut in two at every place.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { CLASSES } from '../support/framing-cases.mjs'
import { faults, inTwo } from '../support/framing-run.js'
import { forwardAll, type Gateway, startGateway } from '../support/gateway.js'
import { type Origin, startScripted } from '../support/origins.js'
import { requireGate } from '../support/requirements.js'

let origin: Origin
let complete = 0
let gateway: Gateway

beforeAll(async () => {
  origin = await startScripted({
    '/': async (exchange) => {
      await exchange.body()
      complete++
      await exchange.answer(200)
    },
  })
  gateway = await startGateway({
    config: forwardAll(origin),
  })
})

afterAll(async () => {
  await gateway.close()
  await origin.close()
})

// Those first of which the service hears nothing at all.
const ordered = [...CLASSES].sort((a, b) => Number(a.streams ?? false) - Number(b.streams ?? false))

test.for(ordered)('$name', async (one, context) => {
  if (one.gate) requireGate(context, gateway)
  expect(await faults(gateway.port, one.requests, one.status, inTwo)).toEqual([])
  if (!one.streams) expect(origin.bytes).toBe(0)
  expect(complete).toBe(0)
})
