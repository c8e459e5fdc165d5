// The key `hedge` of routes.
import { z } from 'zod'
import { DURATION, durationMs } from '../quantities.js'
import { HOUR_MS, ratio, values } from './values.js'

const PERCENTILE = /^p(\d{2}(?:\.\d)?)$/

const after = z
  .string('must be a percentile or a duration: p95, 50ms')
  .regex(
    new RegExp(`${PERCENTILE.source}|${DURATION.source}`),
    'is neither a percentile nor a duration; write p95 or 50ms',
  )
  .superRefine((text, context) => {
    const percentile = PERCENTILE.exec(text)?.[1]
    const ms = durationMs(text)
    if (percentile !== undefined && Number(percentile) < 50) context.addIssue('must be p50 to p99.9')
    if (ms !== null && (ms < 1 || ms > HOUR_MS)) context.addIssue('must be between 1ms and 1h')
  })
  .meta(values('`p50` to `p99.9`, or duration, 1ms to 1h'))

export const hedgeSchema = z
  .strictObject(
    {
      after: after
        .default('p95')
        .describe(
          "How long the response may take to begin before another endpoint is asked, too: a duration, or a percentile of what the route's responses took lately in this worker.",
        ),
      budget: ratio
        .default(0.05)
        .describe(
          "Most hedges as a share of the route's requests, in each worker. A quiet route may have 10, and one more each second.",
        ),
    },
    'must be a map such as { after: p95 }',
  )
  .describe(
    'Ask a second endpoint if the first takes longer than usual; the first response wins. For requests that may be repeated. Without this key none; {} uses all defaults.',
  )

export type HedgeConfig = z.output<typeof hedgeSchema>
