// Tells when a file is another one: for TIDEGATE_WATCH_CONFIG. It is looked at, not watched: inotify hears nothing of a file that is replaced
// by way of symbolic links, as Kubernetes does it, nor over a network.
import { stat } from 'node:fs/promises'

const LOOK_MS = 500

/**
 * `onChange` once the file has stayed as it is from one look to the next: a half-written one may well be sound. The first time is for what
 * happened to it between its being read at start and now. Returns what ends it.
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

/** '' for one that is not there: a moment on the way from one to the next, or somebody's mistake, which the reload then tells of. */
async function identity(file: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeMs } = await stat(file)
    return `${dev} ${ino} ${size} ${mtimeMs}`
  } catch {
    return ''
  }
}
