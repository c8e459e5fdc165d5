// Options of one endpoint: a URL alone, or a map with its weight and zone.
import { z } from 'zod'
import { DEFAULT_WEIGHT, type EndpointConfig, endpointProblem } from '../endpoint.js'
import { integer, name } from './values.js'

const url = z
  .string()
  .superRefine((text, context) => {
    const problem = endpointProblem(text)
    if (problem !== null) context.addIssue(problem)
  })
  .describe('http(s)://host[:port], without a path; or unix:/absolute/path of a socket, 107 bytes at most.')

const options = z.strictObject({
  url,
  weight: integer(1, 1000)
    .default(DEFAULT_WEIGHT)
    .describe('Share of the requests: an endpoint with weight 2 gets twice as many as one with weight 1.'),
  zone: name
    .optional()
    .describe(
      'Where the endpoint runs. Gateways with the same TIDEGATE_ZONE prefer it. Without this key it is in none.',
    ),
})

/** However it is written, an endpoint has one form: a string where only the URL says something. */
export const endpointSchema = z
  .union([url, options], 'must be a URL, or a map such as { url: http://10.0.0.1:9000, weight: 2, zone: a }')
  .transform((entry): EndpointConfig => {
    if (typeof entry === 'string') return entry
    const { url, weight, zone = '' } = entry
    return weight === DEFAULT_WEIGHT && zone === '' ? url : { url, weight, zone }
  })
