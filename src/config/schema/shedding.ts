// Options of load shedding: which routes matter most when the gateway is overloaded, and when it is.
import { z } from 'zod'
import { IMPORTANCES } from '../shedding.js'
import { duration } from './values.js'

export const importance = z
  .enum(IMPORTANCES)
  .default('normal')
  .describe(
    'What an overloaded gateway refuses first, with 503: requests for routes of low importance, then normal, and high last.',
  )

const rules = z.strictObject({
  target: duration(5, 60_000)
    .prefault('200ms')
    .describe(
      'How long requests may wait for a worker: for a turn of its event loop, and for a connection if the worker is too busy to free one.',
    ),
  interval: duration(50, 60_000)
    .prefault('500ms')
    .describe(
      'How long requests must wait longer than target all the time before the worker refuses some, and how often it refuses more or fewer of them.',
    ),
})

export const sheddingSchema = z
  .union([z.boolean(), rules], 'must be false, or a map such as { target: 200ms }')
  .transform((given) => (given === true ? rules.parse({}) : given))
  .describe(
    'Load shedding: an overloaded worker refuses a share of the requests, those of low importance first. false: it refuses none.',
  )
