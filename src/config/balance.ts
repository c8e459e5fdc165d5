// How requests are divided among the endpoints of a service. Pure; upstream/cluster/ has the balancers.
import type { BalanceRules } from './route-table.js'
import { parseRequestKey } from './split.js'

/** As the schema gives it. */
export type BalanceConfig =
  | 'p2c'
  | 'round-robin'
  | 'ewma'
  | { readonly hash: string; readonly bounded: number | 'none' }

export function compileBalance(balance: BalanceConfig): BalanceRules {
  if (typeof balance === 'string') return { kind: balance }
  const { hash, bounded } = balance
  return {
    kind: 'hash',
    part: hash === 'path' ? { kind: hash } : parseRequestKey(hash),
    bounded: bounded === 'none' ? Number.POSITIVE_INFINITY : bounded,
  }
}
