// Options that send a route's requests to more than one service: split, sticky and mirror.
import { z } from 'zod'
import { TOKEN } from '../patterns.js'
import { name, named, ratio, size, values } from './values.js'

const weight = z.number('must be a number without %: a share of the sum of all weights').min(0).max(1_000_000)

export const splitSchema = z
  .union(
    [
      named(weight),
      z
        .array(
          z.strictObject(
            {
              service: name.describe('The service: a key of services.'),
              weight: weight
                .default(1)
                .describe(
                  'Its share is this of the sum of all weights. 0: none, for a service that is being prepared.',
                ),
            },
            'must be a map such as { service: orders, weight: 95 }',
          ),
        )
        .max(16),
    ],
    'must be a map such as { orders: 95, orders-next: 5 }',
  )
  .transform((split) =>
    Array.isArray(split) ? split : Object.entries(split).map(([service, weight]) => ({ service, weight })),
  )
  .superRefine((sides, context) => {
    const add = (path: PropertyKey[], message: string) => context.addIssue({ code: 'custom', path, message })
    if (sides.length < 2) add([], 'needs two services or more; write service for one')
    else if (sides.every(({ weight }) => weight === 0)) add([], 'needs a weight above 0: no service would get requests')
    sides.forEach(({ service }, at) => {
      if (sides.findIndex((side) => side.service === service) < at) add([at, 'service'], `"${service}" is listed twice`)
    })
  })
  .describe(
    'In place of service: the services that share the requests, as `{ NAME: WEIGHT, … }` or as a list. `{ orders: 95, orders-next: 5 }` is a canary of 5 %.',
  )

const STICKY = /^(consumer|address|(header|cookie):(.+))$/

export const stickyKey = {
  sticky: z
    .string()
    .refine((text) => STICKY.test(text) && TOKEN.test(STICKY.exec(text)?.[3] ?? 'x'), {
      error: 'must be consumer, address, header:NAME or cookie:NAME',
    })
    .meta(values('`consumer`, `address`, `header:NAME` or `cookie:NAME`'))
    .optional()
    .describe(
      'With split: requests with the same consumer, client address, header or cookie go to the same service, over all workers and restarts. Default: each request is divided by itself.',
    ),
}

/** Copies hold their bodies. */
const MOST_BODY_BYTES = 2 ** 20

const mirrorObject = z.strictObject({
  service: name.describe('The service that gets the copies: a key of services.'),
  share: ratio.default(1).describe('Share of the requests that are copied.'),
  maxBody: size(MOST_BODY_BYTES)
    .refine((bytes) => bytes <= MOST_BODY_BYTES, 'must be at most 1MiB')
    .meta(values('size, up to 1MiB'))
    .default(65_536)
    .describe(
      'Requests with a larger body are not copied. Nor is a body that streams, if more than 64KiB of it are to come. Default 64KiB.',
    ),
})

export const mirrorKey = {
  mirror: z
    .union([name, mirrorObject], 'must be the name of a service, or a map such as { service: shadow, share: 0.1 }')
    .transform((mirror) => (typeof mirror === 'string' ? mirrorObject.parse({ service: mirror }) : mirror))
    .optional()
    .describe(
      'Sends a copy of requests to another service as well, as `{ service: NAME, share: 0.1 }`, or NAME for all of them. Nobody sees its responses or waits for them. Copies carry x-tidegate-mirror: 1.',
    ),
}
