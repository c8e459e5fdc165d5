// The destination of access lines: each worker opens it and learns how to write to it, so that several workers can
// share it without mixing lines or blocking the event loop. Knows nothing about the lines.
import { constants, fstatSync, openSync } from 'node:fs'
import { isatty } from 'node:tty'

export interface Sink {
  /** The writer closes it, unless it is 1 or 2. */
  readonly fd: number
  /** Longest single write: a longer one could be interleaved with another process's. */
  readonly maxWriteBytes: number
  /**
   * Writes never block, so they are made on the spot. A write through libuv's threads costs five times the CPU
   * (measured: 28 µs against 5 µs for 4 KiB into a pipe), but a disk or a terminal can stall and a stalled thread is
   * not a stalled loop.
   */
  readonly nonBlocking: boolean
}

const FILE_WRITE_BYTES = 65_536
/** A write to a Unix stream socket (journald's stdout) is one kernel buffer, and so atomic, up to 32 KiB. */
const SOCKET_WRITE_BYTES = 16_384
const PIPE_BUF = 4_096

/** @throws what `open` throws if the path cannot be opened for appending, such as a FIFO without a reader */
export function openSink(target: string, stdoutFd = 1): Sink {
  if (target === 'stdout') return sinkOn(stdoutFd)
  return describe(openLogFile(target), true)
}

/** Opens a file with mode 0640, so that log collectors can read it. Throws as openSink does. */
export function openLogFile(path: string): number {
  // Without O_NONBLOCK, opening a FIFO would wait for its reader; regular files ignore the flag.
  return openSync(path, constants.O_WRONLY | constants.O_APPEND | constants.O_CREAT | constants.O_NONBLOCK, 0o640)
}

/**
 * A descriptor that others share. Blocking is a property of the open file, not of the descriptor, so it must not be
 * changed for them: a pipe is opened anew through /proc instead. If that is impossible, writes go through libuv's
 * threads.
 */
function sinkOn(fd: number): Sink {
  const stats = fstatSync(fd)
  if (stats.isFIFO() || (stats.isCharacterDevice() && !isatty(fd))) {
    try {
      return describe(openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK), true)
    } catch {
      // No /proc, or the pipe belongs to another user.
    }
  }
  return describe(fd, false)
}

function describe(fd: number, nonBlocking: boolean): Sink {
  const stats = fstatSync(fd)
  if (stats.isFile()) return { fd, maxWriteBytes: FILE_WRITE_BYTES, nonBlocking: false }
  if (stats.isSocket()) return { fd, maxWriteBytes: SOCKET_WRITE_BYTES, nonBlocking: false }
  // A terminal may take part of a write; only sonic-boom's asynchronous mode reports how much.
  return { fd, maxWriteBytes: PIPE_BUF, nonBlocking: nonBlocking && !isatty(fd) }
}
