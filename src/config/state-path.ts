// Chooses the state file unless TIDEGATE_STATE names one: in a directory that only the gateway's user can write to. In
// a directory that all users can write to, any of them could create the file first and keep the gateway from starting.
import { accessSync, constants, lstatSync, mkdirSync, type Stats, statSync } from 'node:fs'
import os from 'node:os'
import path from 'node:path'

export interface StatePlaces {
  /** From systemd: StateDirectory=, then RuntimeDirectory=. '' if unset; several are separated by colons. */
  readonly stateDirectory: string
  readonly runtimeDirectory: string
  /** XDG_RUNTIME_DIR, the directory of the user's session. */
  readonly sessionDirectory: string
  /** XDG_STATE_HOME. */
  readonly stateHome: string
  readonly uid: number
  readonly port: number
  /** Directories of this user to choose from, for tests. */
  readonly own?: readonly string[]
}

/**
 * Returns the first safe place: a directory that belongs to this user, or that makeStateDirectory can create. Changes
 * nothing. If none is safe, it returns one that makeStateDirectory refuses.
 */
export function defaultStatePath(places: StatePlaces): string {
  const { uid, port, own = ownDirectories(places) } = places
  const name = nameOf(uid, port)
  const given = [places.stateDirectory, places.runtimeDirectory, places.sessionDirectory]
    .map((list) => list.split(':')[0] as string)
    .filter((directory) => directory !== '' && isOf(uid, statOf(directory)))
  const usable = own.filter((directory) => isUsable(directory, uid))
  // Existing state wins, even if another place has become usable since.
  const used = usable.find((directory) => isOwnFile(lstatOf(path.join(directory, name)), uid))
  const chosen = path.join(given[0] ?? used ?? usable[0] ?? own[0]!, name)
  // The default before 0.1.0.
  const former = path.join(places.runtimeDirectory.split(':')[0] || places.sessionDirectory || os.tmpdir(), name)
  return former !== chosen && lstatOf(chosen) === null && isOwnFile(lstatOf(former), uid) ? former : chosen
}

function ownDirectories({ uid, stateHome }: StatePlaces): string[] {
  return [
    ...(uid === 0 ? ['/run/tidegate'] : []),
    ...['/dev/shm', os.tmpdir()].map((directory) => path.join(directory, `tidegate-${uid}`)),
    // Last, because a home directory may be on a network. No other user can block it.
    path.join(stateHome || path.join(os.homedir(), '.local', 'state'), 'tidegate'),
  ]
}

/**
 * Creates the directory that defaultStatePath chose, for this user alone, if it is missing. A directory that an
 * operator names must exist.
 * @throws Error if it cannot, or if others could write to the directory
 */
export function makeStateDirectory(file: string): void {
  const uid = process.getuid?.() ?? 0
  const port = /-(\d+)\.state$/.exec(file)?.[1]
  if (port === undefined || path.basename(file) !== nameOf(uid, Number(port))) return
  const directory = path.dirname(file)
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const around = statOf(path.dirname(directory))
  const isOpenToAll = around !== null && (around.mode & 0o002) !== 0
  if (!isOpenToAll || isPrivate(directory, uid)) return
  throw new Error(
    `${directory} must be a directory of this user, with mode 0700: name another place for the state, or remove it`,
  )
}

function nameOf(uid: number, port: number): string {
  return `tidegate-${uid}-${port}.state`
}

function isUsable(directory: string, uid: number): boolean {
  if (lstatOf(directory) !== null) return isPrivate(directory, uid)
  const parent = path.dirname(directory)
  return lstatOf(parent) === null ? isOf(uid, statOf(firstThere(parent))) : isWritable(parent)
}

/** Uses lstat: whoever made a link can change it. */
function isPrivate(directory: string, uid: number): boolean {
  const found = lstatOf(directory)
  return found !== null && isOf(uid, found) && (found.mode & 0o077) === 0
}

function isOf(uid: number, found: Stats | null): boolean {
  return found?.isDirectory() === true && found.uid === uid && (found.mode & 0o022) === 0
}

/** The same test that the addon applies to a segment (native/src/segment.cc). */
function isOwnFile(found: Stats | null, uid: number): boolean {
  return found?.isFile() === true && found.uid === uid && (found.mode & 0o077) === 0 && found.nlink === 1
}

function isWritable(directory: string): boolean {
  try {
    accessSync(directory, constants.W_OK | constants.X_OK)
    return true
  } catch {
    return false
  }
}

function firstThere(directory: string): string {
  return lstatOf(directory) !== null || directory === path.dirname(directory)
    ? directory
    : firstThere(path.dirname(directory))
}

function statOf(file: string): Stats | null {
  try {
    return statSync(file, { throwIfNoEntry: false }) ?? null
  } catch {
    return null
  }
}

function lstatOf(file: string): Stats | null {
  try {
    return lstatSync(file, { throwIfNoEntry: false }) ?? null
  } catch {
    return null
  }
}
