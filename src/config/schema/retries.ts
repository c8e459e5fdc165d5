// The key `retries` of services.
import { z } from 'zod'
import { duration, HOUR_MS, integer, ratio, size, values } from './values.js'

const REASON_RULE = 'must be connect, reset, timeout or a status from 400 to 599'

const reason = z
  .union([z.enum(['connect', 'reset', 'timeout'], REASON_RULE), integer(400, 599)], REASON_RULE)
  .meta(values('`connect`, `reset`, `timeout`, or a status from 400 to 599'))

const rules = z
  .strictObject({
    attempts: integer(1, 10).default(2).describe('Most attempts for one request, the first one included.'),
    on: z
      .array(reason, 'must be a list such as [connect, reset, 503]')
      .min(1)
      .default(['connect', 'reset', 'timeout', 500, 502, 503, 504])
      .describe(
        'What another attempt may follow. connect: no connection, so nothing was sent; any method. reset: the connection was lost before the response began. timeout: firstByte or perTry has passed. Statuses: only if the service has another endpoint.',
      ),
    backoff: duration(0, 10_000)
      .prefault('25ms')
      .describe(
        'A random time up to this passes before the same endpoint is asked again, and before attempts after the second, where it doubles each time, up to 10 s. Another endpoint is asked at once.',
      ),
    perTry: duration(1, HOUR_MS, true)
      .prefault('none')
      .describe(
        'If the response has not begun after this time, another endpoint is asked, where that is allowed. The last attempt has timeouts.firstByte.',
      ),
    budget: ratio
      .default(0.2)
      .describe(
        "Most retries as a share of the service's requests, in each worker. A quiet service may have 10, and one more each second.",
      ),
    maxBody: size(2 ** 30)
      .prefault('64KiB')
      .describe('Longest request body that is sent a second time.'),
  })
  .describe('Retries, all options with their defaults.')

export const retriesSchema = z
  .union([z.boolean(), rules], 'must be false, or a map such as { attempts: 3 }')
  .transform((given) => (given === true ? rules.parse({}) : given))
  .prefault({})
  .describe(
    'When a request is sent again, and where. For methods that may be repeated: GET, HEAD, OPTIONS, TRACE, PUT and DELETE. false: never.',
  )

export type RetriesConfig = z.output<typeof retriesSchema>
