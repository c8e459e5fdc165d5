// A route's mirror: what it compiles to, and how `tidegate routes` names it. Pure; start-up only.
import type { MirrorRules, Service } from './route-table.js'
import { formatShare } from './split.js'

/** Marks copies: a service that has effects outside itself (mails, payments) may leave them out. In lower case. */
export const MIRROR_FIELD = 'x-tidegate-mirror'

/**
 * Why a request was not copied though the share said so: its body was too large or not whole in memory; too many copies
 * were in flight; the service had no endpoint or no place for it, or its breaker was open.
 */
export const MIRROR_DROPS = ['body', 'in_flight', 'unavailable'] as const
export type MirrorDrop = (typeof MIRROR_DROPS)[number]

interface MirrorConfig {
  readonly service: string
  readonly share: number
  readonly maxBody: number
}

export function compileMirror(
  mirror: MirrorConfig | undefined,
  services: ReadonlyMap<string, Service>,
): MirrorRules | null {
  if (mirror === undefined) return null
  const { service, share, maxBody } = mirror
  return { service: services.get(service) as Service, share, maxBodyBytes: maxBody }
}

/** The service that an entry names, with the path of its key. Takes what the schema refused, too. */
export function mirrorEntry(mirror: unknown): { readonly path: readonly PropertyKey[]; readonly service: unknown } {
  return typeof mirror === 'string'
    ? { path: ['mirror'], service: mirror }
    : { path: ['mirror', 'service'], service: Object(mirror).service }
}

export function describeMirror(mirror: MirrorRules | null): string {
  return mirror === null ? '' : `${mirror.service.name} ${formatShare(mirror.share)}`
}
