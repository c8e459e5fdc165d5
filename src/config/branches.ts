// The branches of all routes: each service of a split, and of a mirror. Pure; start-up only.
import type { Branch, Route, SplitRules } from './route-table.js'
import { shareOfSide } from './split.js'

/** @param slots their places in the table of branches; without them they are the indexes */
export function branchesOf(routes: readonly Route[], slots: readonly number[] | undefined): Branch[] {
  const branches = routes.flatMap(({ name: route, handler, mirror }): Omit<Branch, 'slot'>[] => {
    const sides = handler.kind === 'split' ? (handler as SplitRules).sides : []
    const split = sides.map(({ service }, at) => ({
      kind: 'split' as const,
      route,
      service: service.name,
      share: shareOfSide(sides, at),
    }))
    if (mirror === null) return split
    return [...split, { kind: 'mirror' as const, route, service: mirror.service.name, share: mirror.share }]
  })
  return branches.map((branch, index) => ({ ...branch, slot: slots?.[index] ?? index }))
}
