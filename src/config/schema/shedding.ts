// Options of load shedding: which routes matter most when the gateway is overloaded, and when it is.
import { z } from 'zod'
import { IMPORTANCES } from '../shedding.js'
import { duration, values } from './values.js'

export const importance = z
  .enum(IMPORTANCES)
  .default('normal')
  .describe(
    'What an overloaded gateway refuses first, with 503: requests for routes of low importance, then normal, and high last.',
  )

const rules = z.strictObject({
  target: duration(5, 60_000)
    .prefault('200ms')
    .describe("How late a worker's event loop may be. A request waits about twice as long as that in the gateway."),
  interval: duration(50, 60_000)
    .prefault('500ms')
    .describe(
      'How long the event loop must be late all the time before the worker refuses requests, and how often it refuses more of them or fewer.',
    ),
})

export const sheddingSchema = z
  .union([z.literal(false).meta(values('`false`')), rules])
  .describe(
    'Load shedding: an overloaded worker refuses a share of the requests, those of low importance first. false: it refuses none.',
  )
