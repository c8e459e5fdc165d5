// Which name was tried where credentials proved wrong: for the log, so that an operator sees whom somebody is guessing at. Only what cannot be a
// secret of ours that went into the wrong field. Runs per refused credential.
import { hash } from 'node:crypto'
import type { RouteTable } from '../config/compile.js'

/** The name, or '' where the log must not show it. */
export function createTriedName(
  table: Pick<RouteTable, 'consumers' | 'consumersByName' | 'issuers'>,
): (name: string) => string {
  const secrets = new Set([
    ...table.issuers.flatMap((issuer) => issuer.secrets),
    ...table.consumers.flatMap(({ secrets, httpSignatureKeys }) => [
      ...secrets,
      ...httpSignatureKeys.flatMap(({ material }) => [material, Buffer.from(material, 'base64').toString('utf8')]),
    ]),
  ])
  const hashes = new Set(table.consumers.flatMap(({ apiKeys, password }) => [...apiKeys, password]))
  return (name) => {
    if (name === '' || table.consumersByName.has(name)) return name
    return secrets.has(name) || hashes.has(`sha256:${hash('sha256', name, 'hex')}`) ? '' : name
  }
}
