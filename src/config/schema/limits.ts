// Options of rate limits: named limits that routes share, and limits written into a route.
import { z } from 'zod'
import { canonicalZone } from '../calendar.js'
import { parseQuota, parseRate, QUOTA, type Quota, RATE, type Rate } from '../quantities.js'
import { integer, method, name, oneOrMore, values } from './values.js'

const limitKey = z
  .string()
  .regex(
    /^(consumer|address|route|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+)$/,
    'is not a key; write consumer, address, route or header:NAME',
  )
  .transform((text) => text.toLowerCase())
  .meta(values('`consumer`, `address`, `route` or `header:NAME`'))

const MAX_QUANTITY = 1_000_000_000
const rate = z
  .string('must be a rate: 1000/s, 60/m, 5000/h or 100000/d')
  .regex(RATE, 'is not a rate; write 1000/s, 60/m, 5000/h or 100000/d')
  .transform((text, context): Rate => {
    const parsed = parseRate(text) as Rate
    const problem = rateProblem(parsed)
    if (problem !== null) context.addIssue(problem)
    return parsed
  })
  .meta(values(`rate: 1/d to ${MAX_QUANTITY}/d, per \`s\`, \`m\`, \`h\` or \`d\`, up to 1000000/s`))

function rateProblem({ quantity, windowSeconds }: Rate): string | null {
  if (quantity < 1 || quantity > MAX_QUANTITY) return `must be between 1 and ${MAX_QUANTITY} per unit`
  // Times are counted in microseconds, so no rate can exceed one request per microsecond.
  return quantity / windowSeconds > 1_000_000 ? 'must be at most 1000000 per second' : null
}

const quota = z
  .string('must be a quota: 1000/hour, 100000/day, 500000/week or 2000000/month')
  .regex(QUOTA, 'is not a quota; write 1000/hour, 100000/day, 500000/week or 2000000/month')
  .transform((text, context): Quota => {
    const parsed = parseQuota(text) as Quota
    if (parsed.quantity < 1 || parsed.quantity > MAX_QUANTITY)
      context.addIssue(`must be between 1 and ${MAX_QUANTITY} per period`)
    return parsed
  })
  .meta(values(`quota: 1 to ${MAX_QUANTITY} per \`hour\`, \`day\`, \`week\` or \`month\``))

const burst = integer(1, MAX_QUANTITY)
const inFlight = integer(1, 1_000_000)

/** Options that say how a limit counts. */
export interface MeasureConfig {
  rate?: Rate | undefined
  burst?: number | undefined
  quota?: Quota | undefined
  timezone?: string | undefined
  inFlight?: number | undefined
}

/** Accepts a rate, a quota or a number, whichever the limit has: some texts are valid as both of the first two. */
const tier = z.union(
  [
    inFlight.transform((inFlight): MeasureConfig => ({ inFlight })),
    z.string().transform((text, context): MeasureConfig => {
      const asRate = RATE.test(text) ? rate.safeParse(text) : null
      const asQuota = QUOTA.test(text) ? quota.safeParse(text) : null
      if (!asRate?.success && !asQuota?.success)
        context.addIssue(
          (asRate ?? asQuota)?.error?.issues[0]?.message ?? 'is neither a rate (100/s) nor a quota (100000/day)',
        )
      return { rate: asRate?.data, quota: asQuota?.data }
    }),
    z
      .strictObject({
        rate: rate.describe('Requests per s, m, h or d on average.'),
        burst: burst.describe('Size of the token bucket.'),
      })
      .transform((bucket): MeasureConfig => bucket),
  ],
  'must be a rate (100/s), a quota (100000/day), { rate: 100/s, burst: 200 }, or a number of requests in flight',
)

const cost = integer(0, 1_000_000)
const limitShape = {
  by: oneOrMore(limitKey).describe(
    'What has a count of its own: each consumer, address (IPv6 by /64), route, header:NAME, or each combination of several.',
  ),
  rate: rate
    .optional()
    .describe(
      'Most requests in any s, m, h or d (a sliding window). With burst: requests per s, m, h or d on average.',
    ),
  burst: burst
    .optional()
    .describe(
      'Makes the limit a token bucket of this size: after an idle period exactly that many requests pass at once, then the rate applies.',
    ),
  quota: quota
    .optional()
    .describe('In place of rate: most requests in each calendar hour, day, week (from Monday) or month.'),
  inFlight: inFlight
    .optional()
    .describe(
      'In place of rate: most requests at the same time, until their responses are complete. Exact over all workers.',
    ),
  timezone: z
    .string()
    .transform((text, context) => {
      const zone = canonicalZone(text)
      if (zone === null) context.addIssue('is not a time zone; write UTC or a name such as Europe/Berlin')
      return zone ?? text
    })
    .optional()
    .describe('Time zone of the calendar of a quota, with summer time. Default UTC.'),
  tiers: z
    .record(z.string(), tier)
    .default({})
    .describe(
      "Other numbers for some consumers, by consumer name or 'group:NAME'. A consumer's name takes precedence; of several groups, the first in this list.",
    ),
  cost: z
    .union([cost, z.record(method, cost)])
    .prefault(1)
    .describe('What one request costs: a number, or a number per method ({ GET: 1, POST: 5 }; other methods cost 1).'),
  on: z
    .enum(['request', 'failedAuth'])
    .default('request')
    .describe(
      'What is counted: requests, or wrong credentials (failedAuth). failedAuth is asked before credentials are checked; consumer then means the claimed name, or the address if none is claimed.',
    ),
  mode: z
    .enum(['enforce', 'report'])
    .default('enforce')
    .describe('report: the limit counts and marks the log line, but admits the request.'),
  onFull: z
    .enum(['allow', 'deny'])
    .default('allow')
    .describe(
      'If the table has no room for a new key: allow lets several keys share a count, deny refuses the request.',
    ),
  headers: z.boolean().default(false).describe('Send RateLimit and RateLimit-Policy on admitted responses too.'),
}

export const limitSchema = z
  .strictObject(limitShape)
  .describe('A rate limit. It counts per key, over all routes that name it.')
export const inlineLimit = z.strictObject({
  ...limitShape,
  name: name
    .optional()
    .describe('With a name, the limit keeps its counts when the route is renamed or its limits are reordered.'),
})
