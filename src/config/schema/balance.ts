// Options that decide which endpoint of a service gets a request.
import { z } from 'zod'
import { TOKEN } from '../patterns.js'
import { duration, HOUR_MS, values } from './values.js'

const hashPart = z
  .string()
  .superRefine((text, context) => {
    const problem = hashProblem(text)
    if (problem !== null) context.addIssue(problem)
  })
  .meta(values('`consumer`, `address`, `path`, `header:NAME` or `cookie:NAME`'))

/** Null where nothing is. */
function hashProblem(text: string): string | null {
  if (text === 'consumer' || text === 'address' || text === 'path') return null
  const [kind, name = ''] = text.split(/:(.*)/s)
  if (kind !== 'header' && kind !== 'cookie') return 'must be consumer, address, path, header:NAME or cookie:NAME'
  if (name === '') return `must say which ${kind}: write ${kind}:NAME`
  return TOKEN.test(name) ? null : `"${name}" is not the name of a ${kind}`
}

const RULE = 'must be p2c, round-robin, ewma or a map such as { hash: consumer }'

const BOUND_RULE = 'must be a number from 1 to 100, or none'

export const balanceKeys = {
  balance: z
    .union(
      [
        z.enum(['p2c', 'round-robin', 'ewma'], RULE),
        z.strictObject({
          hash: hashPart.describe(
            'What decides: requests with the same consumer, client address, path, header or cookie go to the same endpoint. A request that lacks it goes where p2c sends it.',
          ),
          bounded: z
            .union([z.number().min(1).max(100), z.literal('none', BOUND_RULE)], BOUND_RULE)
            .default(1.25)
            .meta(values('1 to 100, or `none`'))
            .describe(
              'Most requests that an endpoint has in flight, as a multiple of the mean; further ones go to the next endpoint for the key. none: all of a key go to one endpoint, however many they are.',
            ),
        }),
      ],
      RULE,
    )
    .default('p2c')
    .describe(
      'Which endpoint gets a request. p2c: of two drawn at random, the one with fewer requests in flight. round-robin: each in turn. ewma: of two drawn at random, the one that is likely to respond sooner. { hash: … }: always the same one for the same consumer, say.',
    ),
  slowStart: duration(0, HOUR_MS)
    .prefault('10s')
    .describe(
      'Time in which the share of an endpoint that has come back, or is new, grows from 10 % to 100 %. 0s: it gets its whole share at once. Does not apply to a hash.',
    ),
}
