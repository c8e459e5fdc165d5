// The command line of `npm run bench`, refused where it makes no sense.
import { parseArgs } from 'node:util'
import { LEAST_ROUNDS, SCENARIOS, type ScenarioName } from './scenarios.js'

export interface Options {
  readonly quick: boolean
  readonly list: boolean
  readonly scenarios: readonly ScenarioName[] | null
  readonly targets: readonly string[] | null
  readonly roundMs: number | null
  readonly connections: number | null
  readonly rounds: number | null
  readonly json: string | null
  readonly slow: { readonly target: string; readonly by: number } | null
}

export const USAGE = `npm run bench -- [options]

  --quick               under 40 s: fewer scenarios, shorter rounds
  --list                what there is to measure and on this machine, then end
  --scenario A,B        only these: ${Object.keys(SCENARIOS).join(', ')}
  --target A,B          only these targets
  --duration SECONDS    of each target in each round (default: what suits the scenario)
  --connections N       instead of each scenario's own
  --rounds N            interleaved rounds (5 at least; default: what suits the scenario)
  --json FILE           the results there as well
  --slow TARGET=10%     a third process of that target, slowed down on purpose: is it noticed?
`

export class UsageError extends Error {}

export function options(argv: readonly string[], targetNames: readonly string[]): Options {
  const { values } = parse(argv)
  const scenarios = list(values.scenario, Object.keys(SCENARIOS), 'scenario') as ScenarioName[] | null
  const slow = values.slow === undefined ? null : /^(.+)=(\d+(?:\.\d+)?)%?$/.exec(values.slow)
  if (values.slow !== undefined && slow === null) throw new UsageError(`--slow wants TARGET=10%, not ${values.slow}`)
  return {
    quick: values.quick ?? false,
    list: values.list ?? false,
    scenarios,
    targets: list(values.target, targetNames, 'target'),
    roundMs:
      number(values.duration, 'duration', 0.2) === null ? null : number(values.duration, 'duration', 0.2)! * 1000,
    connections: number(values.connections, 'connections', 1),
    rounds: number(values.rounds, 'rounds', LEAST_ROUNDS),
    json: values.json ?? null,
    slow: slow === null ? null : { target: list(slow[1]!, targetNames, 'target')![0]!, by: Number(slow[2]) / 100 },
  }
}

function parse(argv: readonly string[]) {
  try {
    const text = { type: 'string' } as const
    const flag = { type: 'boolean' } as const
    return parseArgs({
      args: [...argv],
      options: {
        quick: flag,
        list: flag,
        help: { type: 'boolean', short: 'h' },
        scenario: text,
        target: text,
        duration: text,
        connections: text,
        rounds: text,
        json: text,
        slow: text,
      },
    })
  } catch (error) {
    throw new UsageError((error as Error).message)
  }
}

function list(value: string | undefined, known: readonly string[], what: string): string[] | null {
  if (value === undefined) return null
  const names = value.split(',').map((name) => name.trim())
  const unknown = names.find((name) => !known.includes(name))
  if (unknown !== undefined) throw new UsageError(`there is no ${what} ${unknown}; there are ${known.join(', ')}`)
  return names
}

function number(value: string | undefined, what: string, least: number): number | null {
  if (value === undefined) return null
  const parsed = Number(value)
  if (!(parsed >= least)) throw new UsageError(`--${what} wants a number of at least ${least}, not ${value}`)
  return parsed
}
