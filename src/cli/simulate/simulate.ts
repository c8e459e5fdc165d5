// `tidegate simulate`: replays access logs against a configuration, or against two. Reads its arguments and prints;
// what would have happened is worked out in src/simulate/.
import { ConfigError, type Loaded, loadConfig } from '../../config/load.js'
import { Comparison } from '../../simulate/comparison.js'
import { loggedDecision } from '../../simulate/decision.js'
import { LogError, replay, shownFile } from '../../simulate/replay.js'
import { type Report, reportOf } from '../../simulate/report.js'
import { Simulation } from '../../simulate/simulation.js'
import { reportText } from './text.js'

export interface SimulateOptions {
  readonly compare?: readonly string[]
  readonly json?: boolean
  readonly failOnChange?: boolean
}

export interface Simulated {
  readonly text: string
  /** Some request ends differently, or goes to another service. */
  readonly changed: boolean
}

/**
 * @param env with the secrets that the configurations name; without it the process's own
 * @throws ConfigError for what cannot be read, and for arguments that are missing
 */
export async function simulate(
  names: readonly string[],
  options: SimulateOptions,
  emphasise: (text: string) => string,
  env?: Readonly<Record<string, string | undefined>>,
): Promise<Simulated> {
  const { configurations, logs } = sort(names, options.compare)
  const loaded = configurations.map((file) => loadConfig({ file, env })) as [Loaded] | [Loaded, Loaded]
  const report = await run(loaded, logs)
  const isComparison = loaded.length === 2
  return {
    text: options.json === true ? JSON.stringify(report, null, 2) : reportText(report, isComparison, emphasise),
    changed: report.changed + report.elsewhere > 0,
  }
}

async function run(loaded: [Loaded] | [Loaded, Loaded], logs: readonly string[]): Promise<Report> {
  const comparison = new Comparison()
  let simulations: Simulation[] = []
  try {
    const summary = await replay(logs, (entry, nowUs) => {
      if (simulations.length === 0) simulations = loaded.map((one) => new Simulation(one, nowUs))
      const [first, second] = simulations as [Simulation, Simulation | undefined]
      const one = first.decide(entry, nowUs)
      if (second === undefined) comparison.count(entry, loggedDecision(entry), one, nowUs)
      else comparison.count(entry, one, second.decide(entry, nowUs), nowUs)
    })
    if (simulations.length === 0) throw new LogError(`${logs.map(shownFile).join(', ')}: has no access lines`)
    for (const simulation of simulations) simulation.finish()
    const [first, second] = simulations as [Simulation, Simulation | undefined]
    return second === undefined
      ? reportOf(summary, comparison, null, first)
      : reportOf(summary, comparison, first, second)
  } catch (error) {
    throw error instanceof LogError ? new ConfigError([error.message]) : error
  }
}

/** Names after `--compare OLD NEW` are logs, like those before it. */
function sort(
  names: readonly string[],
  compare: readonly string[] | undefined,
): { configurations: readonly string[]; logs: readonly string[] } {
  const configurations = compare === undefined ? names.slice(0, 1) : compare.slice(0, 2)
  const logs = compare === undefined ? names.slice(1) : [...names, ...compare.slice(2)]
  if (compare !== undefined && compare.length < 2)
    throw new ConfigError(['--compare takes two configurations: tidegate simulate --compare OLD NEW ACCESSLOG'])
  if (configurations.length === 0)
    throw new ConfigError(['name a configuration and an access log: tidegate simulate CONFIG ACCESSLOG'])
  if (logs.length === 0) throw new ConfigError(['name an access log as well, or - for standard input'])
  const twice = logs.find((log, at) => logs.indexOf(log) !== at)
  if (twice !== undefined) throw new ConfigError([`${twice}: this log is named twice`])
  const config = logs.find((log) => /\.ya?ml$/.test(log))
  if (config !== undefined && compare !== undefined)
    throw new ConfigError([`${config}: with --compare OLD NEW, name access logs and no other configuration`])
  return { configurations, logs }
}
