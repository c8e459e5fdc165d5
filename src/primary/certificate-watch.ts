// The listener's certificates as the primary has read them, for it alone reads these files: workers are told, also one that starts while
// what lies in the files is broken. Files are looked at, not watched: inotify hears nothing of one that is replaced by way of symbolic links.
import { statSync } from 'node:fs'
import { type ListenerTls, readListenerTls, type TlsMaterial } from '../config/certificates.js'
import type { Problem } from '../config/problems.js'
import type { Logger } from '../telemetry/log.js'
import { StartError } from './start-error.js'

const LOOK_MS = 500
const DAY_MS = 86_400_000
/** Issuers renew a month before the end: whoever comes this far was forgotten. */
const WARN_DAYS = 7

export class CertificateWatch {
  current: TlsMaterial
  private readonly tls: ListenerTls
  private readonly files: readonly string[]
  private readonly log: Logger
  private readonly onChange: (certificates: TlsMaterial) => void
  private readonly timer: NodeJS.Timeout
  /** What the files were when they were last read, and when they were last looked at. */
  private read: string
  private seen: string
  /** What was wrong with them then, as it was told. */
  private told = ''

  /** @throws StartError with all that is wrong */
  constructor(tls: ListenerTls, log: Logger, onChange: (certificates: TlsMaterial) => void) {
    this.tls = tls
    this.files = [...tls.certificates.flatMap(({ cert, key }) => [cert, key]), ...(tls.clientCa ? [tls.clientCa] : [])]
    this.log = log
    this.onChange = onChange
    this.seen = this.identity()
    this.read = this.seen
    const found = this.load()
    if (Array.isArray(found)) throw new StartError(`tls: ${found.join('; ')}`)
    this.current = found
    this.judge()
    this.timer = setInterval(() => this.look(), LOOK_MS)
  }

  stop(): void {
    clearInterval(this.timer)
  }

  /** Once the files stay as they are from one look to the next: a certificate and its key are written one after the other. */
  private look(): void {
    const now = this.identity()
    const stays = now === this.seen
    this.seen = now
    if (!stays || now === this.read) return
    const found = this.load()
    if (Array.isArray(found)) {
      // Looked at again: it may be the gateway's own want of descriptors that is over by then.
      const problems = found.join('\n')
      if (problems !== this.told)
        this.log.error({ problems: found }, 'certificates cannot be used: the former ones stay')
      this.told = problems
      return
    }
    this.read = now
    this.told = ''
    if (JSON.stringify(found) === JSON.stringify(this.current)) return
    this.current = found
    this.log.info({ names: found.certificates.map(({ names }) => names) }, 'certificates changed')
    this.judge()
    this.onChange(found)
  }

  private load(): TlsMaterial | string[] {
    const problems: Problem[] = []
    const material = readListenerTls(this.tls, problems)
    return material ?? problems.map(({ path, message }) => `${path.join('.')}: ${message}`)
  }

  private judge(): void {
    for (const { file, notAfterMs, names } of this.current.certificates) {
      const days = Math.floor((notAfterMs - Date.now()) / DAY_MS)
      if (days >= WARN_DAYS) continue
      this.log.warn({ file, names, days }, days < 0 ? 'certificate has expired' : 'certificate expires soon')
    }
  }

  private identity(): string {
    return this.files.map(identityOf).join('\n')
  }
}

/** '' for one that cannot be seen: a moment on the way from one to the next, or a mistake that reading it will tell of. */
function identityOf(file: string): string {
  try {
    const { dev, ino, size, mtimeMs } = statSync(file)
    return `${dev} ${ino} ${size} ${mtimeMs}`
  } catch {
    return ''
  }
}
