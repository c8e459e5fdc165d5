// How requests are divided among the endpoints of a service. Pure; upstream/cluster/ has the balancers.

/** What requests for the same endpoint have in common. */
export type HashPart =
  | { readonly kind: 'consumer' | 'address' | 'path' }
  /** `name` of a header is in lower case. */
  | { readonly kind: 'header' | 'cookie'; readonly name: string }

export type BalanceRules =
  | { readonly kind: 'p2c' | 'round-robin' | 'ewma' }
  | {
      readonly kind: 'hash'
      readonly part: HashPart
      /** No endpoint has more than this times the mean in flight. Infinity: as many as come. */
      readonly bounded: number
    }

/** As the schema gives it. */
export type BalanceConfig =
  | 'p2c'
  | 'round-robin'
  | 'ewma'
  | { readonly hash: string; readonly bounded: number | 'none' }

export function compileBalance(balance: BalanceConfig): BalanceRules {
  if (typeof balance === 'string') return { kind: balance }
  const { hash, bounded } = balance
  return { kind: 'hash', part: hashPart(hash), bounded: bounded === 'none' ? Number.POSITIVE_INFINITY : bounded }
}

/** Of a text in which hashProblem finds nothing. */
function hashPart(text: string): HashPart {
  const [kind, name] = text.split(/:(.*)/s) as [HashPart['kind'], string]
  if (kind === 'header') return { kind, name: name.toLowerCase() }
  return kind === 'cookie' ? { kind, name } : { kind }
}
