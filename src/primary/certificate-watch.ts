// Watches the listener's certificate files. Only the primary reads them and tells the workers, so a worker can start
// even while the files are broken. It polls, because inotify misses files that are replaced through symbolic links.
import { statSync } from 'node:fs'
import { type ListenerTls, readListenerTls, type TlsMaterial } from '../config/certificates.js'
import type { Problem } from '../config/problems.js'
import type { Logger } from '../telemetry/log.js'
import { StartError } from './start-error.js'

const LOOK_MS = 500
const DAY_MS = 86_400_000
/** Warning time before expiry. Issuers renew a month before it, so a certificate this old was forgotten. */
const WARN_DAYS = 7

export class CertificateWatch {
  current: TlsMaterial
  private readonly tls: ListenerTls
  private readonly files: readonly string[]
  private readonly log: Logger
  private readonly onChange: (certificates: TlsMaterial) => void
  private readonly timer: NodeJS.Timeout
  /** The files' state when they were last read, and when they were last polled. */
  private read: string
  private seen: string
  /** The problems reported last. */
  private told = ''

  /** @throws StartError with all problems */
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

  /**
   * Reads the files once they are unchanged between two polls: a certificate and its key are written one after the
   * other.
   */
  private look(): void {
    const now = this.identity()
    const stays = now === this.seen
    this.seen = now
    if (!stays || now === this.read) return
    const found = this.load()
    if (Array.isArray(found)) {
      // Tried again at the next poll: the cause may be a temporary lack of descriptors.
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

/** '' for a file that cannot be seen: it is being replaced, or a mistake that reading it will report. */
function identityOf(file: string): string {
  try {
    const { dev, ino, size, mtimeMs } = statSync(file)
    return `${dev} ${ino} ${size} ${mtimeMs}`
  } catch {
    return ''
  }
}
