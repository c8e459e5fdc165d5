// uWS apps that speak TLS: one set of certificates as the primary has read it, turned into what uSockets wants, which
// is files. Knows nothing of requests.
//
// uSockets' lower bound is TLS 1.2 and no option raises it. Its cipher list is for 1.2 alone, so one that names nothing
// this side can negotiate leaves 1.3: a client of 1.2 is sent handshake_failure.
import type { AppOptions, TemplatedApp } from 'uWebSockets.js'
import { closeSync, constants, openSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import type { TlsMaterial } from '../../config/certificates.js'
import { uWS } from './load.js'

/** Pre-shared keys: there are none. */
const NO_CIPHER_OF_1_2 = 'PSK'

/** Those of RFC 9325, 4.2. BoringSSL by itself takes CBC, and RSA key exchange, too. */
const CIPHERS_OF_1_2 = ['ECDSA', 'RSA']
  .flatMap((key) => ['AES128-GCM-SHA256', 'AES256-GCM-SHA384', 'CHACHA20-POLY1305'].map((one) => `ECDHE-${key}-${one}`))
  .join(':')

interface NamedOptions {
  readonly name: string
  readonly options: AppOptions
}

export class TlsApps {
  private readonly files: number[] = []
  private readonly standard: AppOptions
  /** Empty where there is one certificate: it is for everyone then. */
  private readonly named: NamedOptions[] = []

  /** @throws when uWS does not take them */
  constructor({ certificates, clientCa }: TlsMaterial, minVersion: string) {
    const common: AppOptions = {
      // With authorities uSockets asks for a certificate, and ends the handshake where there is one that they do not
      // vouch for.
      ...(clientCa === null ? {} : { ca_file_name: this.file(clientCa) }),
      ssl_ciphers: minVersion === '1.3' ? NO_CIPHER_OF_1_2 : CIPHERS_OF_1_2,
    }
    const all = certificates.map(
      ({ cert, key }): AppOptions => ({ ...common, cert_file_name: this.file(cert), key_file_name: this.file(key) }),
    )
    this.standard = all[0]!
    if (all.length > 1) {
      const known = new Map<string, AppOptions>()
      for (const [at, { names }] of certificates.entries()) {
        for (const name of names) if (!known.has(name)) known.set(name, all[at]!)
      }
      this.named = Array.from(known, ([name, options]) => ({ name, options }))
    }
    try {
      // addServerName does not say when it fails.
      for (const options of all) uWS.SSLApp(options).close()
    } catch (error) {
      this.release()
      throw new Error(`tls: uWebSockets.js does not take the certificates (${(error as Error).message})`)
    }
  }

  /** How many sets of keys an app has: each takes memory. */
  get contexts(): number {
    return this.named.length + 1
  }

  /** `route` gives an app its routes: once for all, and once for each name, as uWS keeps these apart. */
  create(route: (app: TemplatedApp) => void): TemplatedApp {
    const app = uWS.SSLApp(this.standard)
    route(app)
    for (const { name, options } of this.named) {
      app.addServerName(name, options)
      // Prints two lines on stdout, which is why that is no worker's (primary/spawn.ts).
      route(app.domain(name))
    }
    return app
  }

  /** No app can be made any more; those that were go on. */
  release(): void {
    for (const fd of this.files.splice(0)) closeSync(fd)
  }

  private file(text: string): string {
    const fd = openNameless()
    this.files.push(fd)
    writeSync(fd, text)
    return `/proc/self/fd/${fd}`
  }
}

/** open(2), O_TMPFILE: Node's constants lack it. */
const O_TMPFILE = 0o20000000 | constants.O_DIRECTORY

/**
 * A file in memory that has no name and that nobody else can open: it goes with its descriptor, however this process
 * ends.
 */
function openNameless(): number {
  const folders = ['/dev/shm', tmpdir()]
  for (const folder of folders) {
    try {
      return openSync(folder, O_TMPFILE | constants.O_RDWR, 0o600)
    } catch {
      // The next one, or the error below.
    }
  }
  throw new Error(
    `tls: one of ${folders.join(' and ')} must be writable, for files without a name that hold certificates and keys`,
  )
}
