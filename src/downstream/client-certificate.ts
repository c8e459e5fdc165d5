// The client's names in its certificate, which TLS has verified by then. Runs per request on listeners that ask for a
// certificate. The server keeps nothing per connection, so the names are remembered by the certificate's text.
import { X509Certificate } from 'node:crypto'
import type { Exchange } from '../exchange/exchange.js'
import { Rejection } from '../exchange/outcome.js'

export type SubjectName = 'cn' | 'dns' | 'uri' | 'email'

const missing = new Rejection('forbidden', 'client certificate missing', true)

const NONE: readonly string[] = []
const MAX_REMEMBERED = 1000

export class ClientCertificates {
  private readonly kind: SubjectName
  private readonly required: boolean
  private readonly known = new Map<string, readonly string[]>()

  constructor(kind: SubjectName, required: boolean) {
    this.kind = kind
    this.required = required
  }

  /** Sets exchange.certificateNames. `pem`: '' where the client has presented none. */
  read(exchange: Exchange, pem: string): Rejection | null {
    if (pem === '') return this.required ? missing : null
    let names = this.known.get(pem)
    if (names === undefined) {
      names = subjectNames(pem, this.kind)
      // Clients renew their certificates: the old ones must not stay for ever.
      if (this.known.size >= MAX_REMEMBERED) this.known.clear()
      this.known.set(pem, names)
    }
    exchange.certificateNames = names
    return null
  }
}

/**
 * In the order of the certificate. Of a subject with several common names none counts: it would be a guess which of
 * them is meant.
 */
export function subjectNames(pem: string, kind: SubjectName): readonly string[] {
  const certificate = new X509Certificate(pem)
  if (kind === 'cn') {
    const cn: unknown = certificate.toLegacyObject().subject?.CN
    return typeof cn === 'string' ? [cn] : NONE
  }
  const prefix = `${kind === 'email' ? 'email' : kind.toUpperCase()}:`
  return alternativeNames(certificate.subjectAltName ?? '').flatMap((entry) =>
    entry.startsWith(prefix) ? [entry.slice(prefix.length)] : [],
  )
}

/** `DNS:a.test, URI:"…, …"`: Node quotes a name as JSON where part of it could be taken for the next entry. */
function alternativeNames(text: string): string[] {
  // A match begins only where an entry does: else the expression would read a long word again from each of its letters.
  const entries = text.match(/(?<=^|, )[A-Za-z ]+:(?:"(?:[^"\\]|\\.)*"|[^,"]*)(?=, |$)/g) ?? []
  return entries.map((entry) => {
    const colon = entry.indexOf(':') + 1
    const value = entry.slice(colon)
    return (entry.slice(0, colon) + (value.startsWith('"') ? (JSON.parse(value) as string) : value)).trimStart()
  })
}
