// The endpoints of one service that are set at run time, and not by the file: checked as the file's are. In the
// primary; runs per change, not per request.
import type { z } from 'zod'
import { type EndpointConfig, endpointAddress, endpointOptions } from './endpoint.js'
import { endpointSchema } from './schema/endpoints.js'
import { schemaProblems } from './zod-problems.js'

export type EndpointInput = z.input<typeof endpointSchema>

/**
 * In the form that the schema gives the file's endpoints.
 * @throws Error that names the endpoint and says what is wrong with it
 */
export function endpointList(entries: readonly EndpointInput[]): EndpointConfig[] {
  const seen = new Set<string>()
  return entries.map((entry) => {
    const parsed = endpointSchema.safeParse(entry)
    if (!parsed.success) throw new Error(`endpoint ${shown(entry)}${problemOf(parsed.error, entry)}`)
    const { origin } = endpointAddress(endpointOptions(parsed.data).url)
    if (seen.has(origin)) throw new Error(`endpoint "${origin}" is listed twice`)
    seen.add(origin)
    return parsed.data
  })
}

function shown(entry: unknown): string {
  const { url } = Object(entry) as { url?: unknown }
  return JSON.stringify(typeof url === 'string' ? url : entry)
}

function problemOf(error: Parameters<typeof schemaProblems>[0], entry: unknown): string {
  const { path, message } = schemaProblems(error, entry)[0]!
  return path.length === 0 ? ` ${message}` : `: ${path.join('.')} ${message}`
}
