// Notices when a file changes, for TIDEGATE_WATCH_CONFIG. It polls: inotify misses files that are replaced
// through symbolic links, as Kubernetes does, and files on a network.
import { stat } from 'node:fs/promises'

const LOOK_MS = 500

/**
 * Calls `onChange` when a changed file is equal in two polls: a half-written one may well be valid. The first call
 * covers what happened between the read at start and now. Returns a function that ends the polling.
 */
export function watchFile(file: string, onChange: () => void): () => void {
  let told = ''
  let seen = ''
  const timer = setInterval(async () => {
    const now = await identity(file)
    const stays = now === seen
    seen = now
    if (!stays || now === told) return
    told = now
    onChange()
  }, LOOK_MS)
  return () => clearInterval(timer)
}

/** '' for a missing file: it is being replaced, or a mistake that the reload will report. */
async function identity(file: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeMs } = await stat(file)
    return `${dev} ${ino} ${size} ${mtimeMs}`
  } catch {
    return ''
  }
}
