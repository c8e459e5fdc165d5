// Tells the log which name wrong credentials claimed, so that an operator sees whose secret is being guessed. Never
// shows a text that may be a secret sent in the wrong field. Runs per refused credential.
import { hash } from 'node:crypto'
import type { RouteTable } from '../config/compile.js'

/** Returns the name, or '' if the log must not show it. */
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
