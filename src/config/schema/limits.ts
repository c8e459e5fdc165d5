// How much callers may: rate limits, named ones that routes share, and those written into a route.
import { z } from 'zod'
import { parseRate, RATE, type Rate } from '../quantities.js'
import { integer, method, name, oneOrMore } from './values.js'

const limitKey = z
  .string()
  .regex(
    /^(consumer|address|route|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$/,
    'is not a key; write consumer, address, route or header:NAME',
  )
  .transform((text) => text.toLowerCase())

const MAX_QUANTITY = 1_000_000_000
const rate = z
  .string('must be a rate: 1000/s, 60/m, 5000/h or 100000/d')
  .regex(RATE, 'is not a rate; write 1000/s, 60/m, 5000/h or 100000/d')
  .transform((text, context): Rate => {
    const parsed = parseRate(text) as Rate
    if (parsed.quantity < 1 || parsed.quantity > MAX_QUANTITY)
      context.addIssue(`must be between 1 and ${MAX_QUANTITY} per unit`)
    // GCRA counts in microseconds: two requests cannot be less than one apart.
    else if (parsed.quantity / parsed.windowSeconds > 1_000_000) context.addIssue('must be at most 1000000 per second')
    return parsed
  })

const cost = integer(0, 1_000_000)
const limitShape = {
  by: oneOrMore(limitKey).describe(
    'What has a bucket of its own: consumer, address (IPv6 by /64), route, header:NAME, or a list of them combined.',
  ),
  rate: rate.describe('Requests per s, m, h or d.'),
  burst: integer(1, MAX_QUANTITY)
    .optional()
    .describe(
      'Size of the bucket: from idle exactly that many pass at once. Default: what one whole unit of the rate allows.',
    ),
  cost: z
    .union([cost, z.record(method, cost)])
    .prefault(1)
    .describe(
      'What one request takes from the bucket: a number, or by method ({ GET: 1, POST: 5 }; methods not named cost 1).',
    ),
  mode: z.enum(['enforce', 'report']).default('enforce').describe('report: counts, marks the log line, and admits.'),
  onFull: z
    .enum(['allow', 'deny'])
    .default('allow')
    .describe('What happens to a new key when the table of buckets is full.'),
  headers: z.boolean().default(false).describe('RateLimit and RateLimit-Policy on admitted answers too.'),
}

export const limitSchema = z
  .strictObject(limitShape)
  .describe('One bucket per key, shared by all routes that name this limit.')
export const inlineLimit = z.strictObject({
  ...limitShape,
  name: name.optional().describe('Keeps its buckets when the route is renamed or its limits reordered.'),
})
