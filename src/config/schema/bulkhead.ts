// Options that bound how many requests a service has in flight: a fixed number with a queue, or one that finds itself.
import { z } from 'zod'
import { duration, integer, values } from './values.js'

const MOST = 1_000_000
const most = integer(1, MOST)

export const maxInFlight = z
  .union(
    [
      most,
      z.strictObject({
        most: most.describe('Most requests in flight, over all workers.'),
        queue: z
          .strictObject(
            {
              size: integer(1, 100_000).describe('Most requests that wait, over all workers.'),
              wait: duration(1, 60_000)
                .prefault('1s')
                .describe('How long a request waits at most; no longer than timeouts.total.'),
            },
            'must be a map such as { size: 100, wait: 1s }',
          )
          .optional()
          .describe('Where requests wait for their turn. Without this key they are refused at once.'),
      }),
    ],
    'must be a number, or { most: 500, queue: { size: 100, wait: 1s } }; without this key there is no limit',
  )
  .describe(
    'Most requests that the service has in flight, exactly and over all workers. Others wait in the queue, or get 503 overloaded. A retry or hedge belongs to its request.',
  )

const adaptiveSchema = z
  .strictObject(
    {
      start: most.default(20).describe('The limit before anything was measured.'),
      least: most.default(1).describe('The limit never falls below this.'),
      tolerance: z
        .number()
        .min(1.1)
        .max(5)
        .default(1.5)
        .describe('How many times its unloaded latency the service may take before the limit falls.'),
    },
    'must be a map such as { start: 20 }',
  )
  .refine(({ start, least }) => start >= least, { path: ['start'], error: 'must not be below least' })

const HOW = 'must be adaptive, or { adaptive: { start: 20 } }'

export const concurrency = z
  .union(
    [
      z
        .string()
        .regex(/^adaptive$/, HOW)
        .transform(() => adaptiveSchema.parse({}))
        .meta(values('`adaptive`')),
      z
        .strictObject({ adaptive: adaptiveSchema.describe('Numbers of the adaptive limit.') })
        .transform(({ adaptive }) => adaptive),
    ],
    HOW,
  )
  .describe(
    'adaptive: the limit on requests in flight finds itself by the latency of the service. maxInFlight then is its upper bound and has its queue.',
  )
