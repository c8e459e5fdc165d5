// Options of outlier ejection: when a failing endpoint of a service gets no requests for a while.
import { z } from 'zod'
import { duration, HOUR_MS, integer, ratio, values } from './values.js'

const SLOW_RULE = 'must be a number from 1.5 to 1000, or none'

const rules = z
  .strictObject({
    failures: integer(1, 1000)
      .default(5)
      .describe(
        'Failures in a row, over all workers, that eject an endpoint. Where its peers fail as well, it takes more.',
      ),
    ratio: ratio
      .default(0.1)
      .describe(
        'An endpoint is ejected when its share of failures in the last tenth of window exceeds that of its peers by this much.',
      ),
    slow: z
      .union([z.number().min(1.5).max(1000), z.literal('none', SLOW_RULE)], SLOW_RULE)
      .meta(values('1.5 to 1000, or `none`'))
      .default(5)
      .describe(
        'An endpoint is ejected when most of its responses take this many times as long as those of its peers. none: never. Balancing by hash turns it off.',
      ),
    window: duration(1000, HOUR_MS)
      .prefault('10s')
      .describe('Time over which failures and latencies are compared; what is older counts less and less.'),
    ejectFor: duration(100, HOUR_MS)
      .prefault('3s')
      .describe('How long the first ejection lasts. Doubles with each that follows soon.'),
    maxEjectFor: duration(100, HOUR_MS).prefault('12s').describe('Upper bound for the doubled ejectFor.'),
    maxShare: ratio
      .default(0.5)
      .describe("Most of the service's endpoints that may be out at a time. One may always, and one always stays."),
    statuses: z
      .array(integer(400, 599))
      .optional()
      .describe(
        'Statuses that count as failures, besides refused and reset connections and timeouts. Default: 500 and above.',
      ),
  })
  .refine(({ ejectFor, maxEjectFor }) => maxEjectFor >= ejectFor, {
    path: ['maxEjectFor'],
    error: 'must be at least ejectFor; without this key it is 12s',
  })

export const outliersSchema = z
  .union([z.boolean(), rules], 'must be false, or a map such as { failures: 5 }')
  .transform((given) => (given === true ? rules.parse({}) : given))
  .prefault({})
  .describe(
    'Ejects an endpoint that fails, hangs or is much slower than its peers, for a while. On where a service has two endpoints or more; false turns it off.',
  )
