// The types of values in the file: names, durations, sizes, hosts, secrets, and lists of them. The error texts for
// wrong values are here; the meaning of an option stands with the option.
import ipaddr from 'ipaddr.js'
import { z } from 'zod'
import { TOKEN } from '../patterns.js'
import {
  DURATION,
  durationMs,
  formatBytes,
  formatDuration,
  NO_TIMEOUT,
  SIZE,
  sizeBytes,
  UNLIMITED_BYTES,
} from '../quantities.js'

export const HOUR_MS = 3_600_000

/**
 * What an option accepts, in words: kinds and limits that JSON Schema has no keyword for. `tidegate schema` prints it,
 * and docs/configuration.md shows it.
 */
export const values = (text: string) => ({ 'x-values': text })

const withAlternative = (pattern: RegExp, word: string) => new RegExp(`^${word}$|${pattern.source}`)

export const duration = (minMs: number, maxMs: number, none = false) =>
  z
    .string('must be a duration: 500ms, 1s, 2m or 1h')
    .regex(
      none ? withAlternative(DURATION, 'none') : DURATION,
      `is not a duration; write 500ms, 1s, 2m or 1h${none ? ', or none' : ''}`,
    )
    .transform((text, context) => {
      if (text === 'none') return NO_TIMEOUT
      const ms = durationMs(text) as number
      if (ms < minMs || ms > maxMs) {
        context.addIssue(
          `must be between ${formatDuration(minMs)} and ${formatDuration(maxMs)}${none ? ', or none' : ''}`,
        )
      }
      return ms
    })
    .meta(values(`duration, ${formatDuration(minMs)} to ${formatDuration(maxMs)}${none ? ', or `none`' : ''}`))

export const size = (maxBytes: number) =>
  z
    .union([z.number(), z.string()])
    .transform((value, context) => {
      if (value === 'unlimited') return UNLIMITED_BYTES
      const bytes = sizeBytes(String(value))
      if (bytes === null) {
        context.addIssue(`is not a size; write bytes, 16KiB, 1MiB or 2GiB, or unlimited`)
        return z.NEVER
      }
      if (bytes > maxBytes) context.addIssue(`must be at most ${formatBytes(maxBytes)}, or unlimited`)
      return bytes
    })
    .meta({
      pattern: withAlternative(SIZE, 'unlimited').source,
      ...values(`size, up to ${formatBytes(maxBytes)}, or \`unlimited\``),
    })

export const integer = (min: number, max: number) => z.int().min(min).max(max)
export const ratio = z.number('must be a number; 0.2 means 20 %').gt(0).max(1)

export const listOf = <T extends z.ZodType>(item: T) => z.array(item).min(1)
/** A list with one element may be written without brackets. */
export const oneOrMore = <T extends z.ZodType<unknown, string>>(item: T) =>
  z.union([item, listOf(item)]).transform((value) => (Array.isArray(value) ? value : [value]) as z.output<T>[])

/** Also a valid x-source, and a label in metrics and log lines: no character needs quoting there. */
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@:/+-]{0,127}$/
const NAME_RULE = 'a name starts with a letter or digit and goes on with letters, digits and . _ @ : / + - (128 in all)'
export const name = z.string().regex(NAME, NAME_RULE).meta(values('name'))
export const named = <T extends z.ZodType>(value: T) => z.record(name, value)

export const headerName = z
  .string()
  .regex(TOKEN, 'is not a header name (RFC 9110, 5.1)')
  .transform((text) => text.toLowerCase())
  .meta(values('header name'))
export const method = z
  .string()
  .regex(TOKEN, 'is not a method name (RFC 9110, 9.1)')
  .transform((text) => text.toUpperCase())
  .meta(values('method'))

export const HOST =
  /^(\*\.)?([\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?)(\.[\p{L}\p{N}_]([\p{L}\p{N}_-]*[\p{L}\p{N}_])?)*$|^\[[0-9A-Fa-f:.]+\]$/u
export const host = z
  .string()
  .regex(HOST, 'is not a host; write a name without scheme, port or path, or *.suffix (leave host out for any)')
  .meta(values('host name or `*.suffix`'))

export const secret = z
  .string()
  .min(1)
  .meta(values('text, `env:NAME` or `file:PATH`'))
  .describe('A secret as text, env:NAME for an environment variable, or file:PATH (relative to this file).')

export const file = z.string().min(1).meta(values('path of a file'))

export const address = z
  .string()
  .refine((text) => ipaddr.isValidCIDR(text) || (ipaddr.isValid(text) && /[.:]/.test(text)), {
    error: 'is not an address or CIDR range',
  })
  .meta(values('address or CIDR range'))
