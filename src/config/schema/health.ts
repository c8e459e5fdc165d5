// Options of a service's active health checks.
import { z } from 'zod'
import { duration, HOUR_MS, integer, values } from './values.js'

/** Final statuses: an interim response (1xx) answers nothing. */
const STATUS = { least: 200, most: 599 } as const

const status = z
  .union([integer(STATUS.least, STATUS.most), z.string()], {
    error: `must be a status from ${STATUS.least} to ${STATUS.most}, or a range of them: 200-299`,
  })
  .transform((value, context): readonly [number, number] => {
    if (typeof value === 'number') return [value, value]
    const [, from = Number.NaN, to = from] = (/^(\d{3})(?:-(\d{3}))?$/.exec(value) ?? [])
      .filter((digits) => digits !== undefined)
      .map(Number)
    if (from >= STATUS.least && from <= to && to <= STATUS.most) return [from, to]
    context.addIssue(
      `is no range of statuses; write 200-299: two statuses from ${STATUS.least} to ${STATUS.most}, the lower one first`,
    )
    return z.NEVER
  })
  .meta(values(`status, or range of statuses like \`200-299\``))

/** What a TCP check has no use for. */
const HTTP_ONLY = ['method', 'path', 'host', 'statuses', 'body'] as const

export const healthSchema = z
  .strictObject(
    {
      type: z
        .enum(['http', 'tcp'])
        .default('http')
        .describe(
          'http: the endpoint must respond to a request. tcp: it must accept a connection and, for https, complete the TLS handshake.',
        ),
      method: z.enum(['GET', 'HEAD']).optional().describe('Method of the check. Default: GET.'),
      path: z
        .string()
        .regex(/^\/[\u0021-\u007e]*$/, "must start with '/' and hold no blanks")
        .optional()
        .describe('Path of the check, with its query. Default: /.'),
      host: z
        .string()
        .regex(
          /^([\w.-]+|\[[\da-fA-F:.]+\])(:\d{1,5})?$/,
          'is not a host; write a name or an address, and :port if need be',
        )
        .optional()
        .describe("Host header of the check. Default: the endpoint's host and port."),
      statuses: z
        .array(status, 'must be a list such as [200-299, 401]')
        .min(1)
        .optional()
        .describe('Statuses that count as healthy. Redirects are not followed. Default: [200-299].'),
      body: z
        .string()
        .min(1)
        .max(1024)
        .optional()
        .describe('Text that the first 64 KiB of the response body must contain.'),
      interval: duration(100, HOUR_MS)
        .prefault('5s')
        .describe('Time between two checks of an endpoint. It varies by 10 %, so that gateways do not check in step.'),
      timeout: duration(10, HOUR_MS)
        .prefault('1s')
        .describe('A check that is not complete after this time fails. At most interval.'),
      healthyAfter: integer(1, 100).default(2).describe('Successful checks in a row that make an endpoint healthy.'),
      unhealthyAfter: integer(1, 100).default(3).describe('Failed checks in a row that make an endpoint unhealthy.'),
    },
    'must be a map such as { path: /healthz } or { type: tcp }',
  )
  .refine((health) => health.timeout <= health.interval, {
    path: ['timeout'],
    error: 'must be at most interval; without this key it is 1s',
  })
  .superRefine((health, context) => {
    for (const key of health.type === 'tcp' ? HTTP_ONLY : []) {
      if (health[key] === undefined) continue
      context.addIssue({ code: 'custom', path: [key], message: 'has no meaning with type: tcp; remove one of the two' })
    }
    if (health.method === 'HEAD' && health.body !== undefined)
      context.addIssue({
        code: 'custom',
        path: ['body'],
        message: 'cannot be checked with method: HEAD, whose responses have no body; use GET',
      })
  })
  .describe(
    'Active health checks of every endpoint. Without this key all endpoints count as healthy; {} uses all defaults.',
  )

export type HealthConfig = z.output<typeof healthSchema>
