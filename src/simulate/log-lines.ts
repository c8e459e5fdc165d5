// Reads access logs for `tidegate simulate`: bytes of a file or of standard input → lines. Off the request's way.
// Memory is bounded whatever the input holds: a line that is too long is skipped and reported.
import { createReadStream, openSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'

/** The gateway's own lines stay below 4 KiB. A collector may have added keys. */
export const MAX_LINE_BYTES = 65_536
const READ_BYTES = 262_144
const LF = 0x0a
const CR = 0x0d

/** A name that ends in `.gz` is unpacked; `-` is standard input. Throws where the file cannot be opened. */
export function openLog(name: string): Readable {
  if (name === '-') return process.stdin
  const file = createReadStream(name, { fd: openSync(name, 'r'), highWaterMark: READ_BYTES })
  if (!name.endsWith('.gz')) return file
  const unpacked = createGunzip({ chunkSize: READ_BYTES })
  file.once('error', (error) => unpacked.destroy(error))
  unpacked.once('close', () => file.destroy())
  return file.pipe(unpacked)
}

/**
 * Calls `onLine` for each line with its number from 1; the text is null where the line is longer than MAX_LINE_BYTES.
 * Ends early when `onLine` returns false.
 */
export async function readLines(
  input: Readable,
  onLine: (text: string | null, number: number) => boolean,
): Promise<void> {
  let number = 0
  let open: Buffer[] = []
  let openBytes = 0
  const take = (last: Buffer): boolean => {
    const bytes = openBytes + last.length
    const line = bytes > MAX_LINE_BYTES ? null : textOf(open.length === 0 ? last : Buffer.concat([...open, last]))
    open = []
    openBytes = 0
    number++
    // An empty line says nothing, and is no mistake.
    return line === '' || onLine(line, number)
  }
  for await (const chunk of input as AsyncIterable<Buffer>) {
    let from = 0
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, from)) {
      if (!take(chunk.subarray(from, end))) return
      from = end + 1
    }
    const rest = chunk.subarray(from)
    // Of a line that is too long only its length is kept.
    if (openBytes <= MAX_LINE_BYTES && rest.length > 0) open.push(rest)
    openBytes += rest.length
    if (openBytes > MAX_LINE_BYTES) open = []
  }
  if (openBytes > 0) take(Buffer.alloc(0))
}

function textOf(line: Buffer): string {
  const end = line[line.length - 1] === CR ? line.length - 1 : line.length
  return line.toString('utf8', 0, end)
}
