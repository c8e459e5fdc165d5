// Which contenders meet in which case: what was asked for, of what is on this machine.
import type { Options } from './options.js'
import { type Case, type Contender, cases } from './scenarios.js'

const NEVER_OFFLOADED = 2 ** 30

export interface Planned {
  readonly spec: Case
  readonly contenders: readonly Contender[]
}

/** `here`: names of the targets this machine has, tidegate first where it is built. */
export function plan(options: Options, here: readonly string[]): Planned[] {
  // A scenario asked for by name is run whether or not --quick would leave it out.
  const wanted = options.scenarios
  return cases(options.quick && wanted === null)
    .filter((spec) => wanted === null || wanted.includes(spec.scenario))
    .filter((spec) => spec.scenario !== 'fan' || options.connections === null || spec.variant === '1')
    .map((spec) => ({
      ...spec,
      roundMs: options.roundMs ?? spec.roundMs,
      rounds: options.rounds ?? spec.rounds,
      connections: options.connections ?? spec.connections,
      variant: spec.scenario === 'fan' && options.connections !== null ? String(options.connections) : spec.variant,
    }))
    .map((spec) => ({ spec, contenders: contenders(spec, options, here) }))
    .filter(({ contenders }) => contenders.length > 0)
}

function contenders(spec: Case, { targets, slow }: Options, here: readonly string[]): Contender[] {
  const names = spec.targets.filter((name) => here.includes(name) && (targets === null || targets.includes(name)))
  if (spec.offload) {
    return names.flatMap((target) => [
      { target, label: `${target} inline`, again: false, slowedBy: 0, offloadBytes: NEVER_OFFLOADED },
      { target, label: `${target} pool`, again: false, slowedBy: 0, offloadBytes: 0 },
    ])
  }
  const list: Contender[] = names.map((target) => ({ target, label: target, again: false, slowedBy: 0 }))
  // Whichever comes first measures the noise: tidegate, where it takes part.
  if (spec.again && list[0] !== undefined)
    list.splice(1, 0, { ...list[0], label: `${list[0].target} (again)`, again: true })
  if (slow !== null && names.includes(slow.target)) {
    list.push({
      target: slow.target,
      label: `${slow.target} (slowed by ${slow.by * 100} %)`,
      again: false,
      slowedBy: slow.by,
    })
  }
  return list
}
