// Plays the requests of access logs in the order in which they began. The gateway writes a line when a request ends, so
// a line may come long after those of requests that began later: lines are held until no request that began earlier can
// still come. What is held is bounded in time and in number; a request that began even earlier is played late, and
// counted. Off the request's way.
import type { Entry } from './entry.js'
import { parseEntry } from './entry.js'
import { MAX_LINE_BYTES, openLog, readLines } from './log-lines.js'
import { TimeQueue } from './time-queue.js'

/** A request that took longer is played late. */
export const HELD_US = 60e6
/** With more lines within that time, none is held as long. */
export const MOST_HELD = 100_000
/**
 * Lines have whole milliseconds: requests closer than that may have come in either order, and keep that of the lines.
 */
const RESOLUTION_US = 999

export interface BadLine {
  readonly file: string
  readonly line: number
  readonly problem: string
}

const MOST_BAD_SHOWN = 5
/** A file that begins with so many lines of another kind is no access log. */
const MOST_BAD_AT_FIRST = 1000

/** What was read. */
export interface LogSummary {
  readonly files: readonly string[]
  lines: number
  requests: number
  malformed: number
  readonly firstMalformed: BadLine[]
  /** Requests that began before others that were played already. */
  late: number
  /** When the first one began, and the last one ended; 0 in an empty log. */
  fromUs: number
  toUs: number
}

/** A file cannot be read, or is no access log. The message names it. */
export class LogError extends Error {}

export type Player = (entry: Entry, nowUs: number) => void

/** @param files names, in any order; `-` is standard input, and is read last */
export async function replay(files: readonly string[], play: Player): Promise<LogSummary> {
  const ordered = await byFirstTime(files)
  const summary: LogSummary = {
    files: ordered,
    lines: 0,
    requests: 0,
    malformed: 0,
    firstMalformed: [],
    late: 0,
    fromUs: 0,
    toUs: 0,
  }
  const held = new TimeQueue<Entry>()
  let newestUs = 0
  let playedUs = 0

  const playFirst = (): void => {
    const atUs = held.nextUs
    if (atUs < playedUs - RESOLUTION_US) summary.late++
    playedUs = Math.max(playedUs, atUs)
    if (summary.fromUs === 0) summary.fromUs = playedUs
    play(held.take(), playedUs)
  }

  for (const file of ordered) {
    let good = 0
    await readFile(file, (text, line) => {
      summary.lines++
      const entry = text === null ? `is longer than ${MAX_LINE_BYTES} bytes` : parseEntry(text)
      if (typeof entry === 'string') {
        summary.malformed++
        if (summary.firstMalformed.length < MOST_BAD_SHOWN)
          summary.firstMalformed.push({ file: shownFile(file), line, problem: entry })
        if (good === 0 && line >= MOST_BAD_AT_FIRST) throw notALog(file, summary)
        return true
      }
      good++
      summary.requests++
      const endUs = entry.beginUs + entry.totalUs
      if (endUs > newestUs) newestUs = endUs
      held.add(entry.beginUs, entry, RESOLUTION_US)
      while (held.length > MOST_HELD || held.nextUs < newestUs - HELD_US) playFirst()
      return true
    })
    if (good === 0 && summary.firstMalformed.some((bad) => bad.file === shownFile(file))) throw notALog(file, summary)
  }
  while (held.length > 0) playFirst()
  summary.toUs = newestUs
  return summary
}

/** A shell names rotated files newest first (`access.log access.log.1`): they are read in the order of their times. */
async function byFirstTime(files: readonly string[]): Promise<string[]> {
  const times = new Map<string, number>()
  for (const file of files) {
    times.set(file, file === '-' || files.length === 1 ? Number.POSITIVE_INFINITY : await firstTimeOf(file))
  }
  return [...files].sort((a, b) => {
    const left = times.get(a) as number
    const right = times.get(b) as number
    return left === right ? 0 : left - right
  })
}

/** Infinity where the file has no access line in its beginning. */
async function firstTimeOf(file: string): Promise<number> {
  let found = Number.POSITIVE_INFINITY
  await readFile(file, (text, line) => {
    const entry = text === null ? '' : parseEntry(text)
    if (typeof entry !== 'string') found = entry.beginUs + entry.totalUs
    return found === Number.POSITIVE_INFINITY && line < MOST_BAD_AT_FIRST
  })
  return found
}

async function readFile(file: string, onLine: (text: string | null, line: number) => boolean): Promise<void> {
  try {
    await readLines(openLog(file), onLine)
  } catch (error) {
    if (error instanceof LogError) throw error
    const { code, message } = error as NodeJS.ErrnoException
    if (code === undefined) throw error
    const why = code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'is a directory' : `cannot be read (${code})`
    throw new LogError(`${shownFile(file)}: ${why.startsWith('cannot') && message !== '' ? `${why}: ${message}` : why}`)
  }
}

function notALog(file: string, { firstMalformed }: LogSummary): LogError {
  const first = firstMalformed.find((bad) => bad.file === shownFile(file))
  const at = first === undefined ? '' : `; line ${first.line} ${first.problem}`
  return new LogError(`${shownFile(file)}: is no access log of Tidegate${at}`)
}

export function shownFile(file: string): string {
  return file === '-' ? 'standard input' : file
}
