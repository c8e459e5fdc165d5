// The two kinds of worker behind one interface: a forked process that inherits segment and listening socket, and a
// thread that shares memory with the primary.
import { type ChildProcess, fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { type Segment, segmentHandle } from '../state/segment.js'
import type { FromWorker, StartMessage } from '../worker/messages.js'
import type { WorkerHandle } from './supervisor.js'

const threadEntry = fileURLToPath(new URL('../worker/entry.js', import.meta.url))
const processEntry = fileURLToPath(new URL('../worker/process.js', import.meta.url))

/** The inherited descriptors in a worker come after stdin, stdout, stderr and the IPC channel. */
const WORKER_SEGMENT_FD = 4
const WORKER_LISTEN_FD = 5
const WORKER_LIVE_FD = 6
/**
 * A worker's stdout goes nowhere, and the primary's stdout is inherited here, for access lines only: uWS prints to
 * stdout when it gets server names.
 */
const WORKER_STDOUT_FD = 7

/**
 * uWS reads this once, when it is loaded. Its default is 4096. The gate before it refuses heads longer than
 * maxHeaderBytes.
 */
const HEADERS_VARIABLE = 'UWS_HTTP_MAX_HEADERS_SIZE'
/** For uWS, the PROXY header that the relay writes before a head (native/src/proxy_protocol.h) is part of the head. */
const MOST_PROXY_HEADER_BYTES = 52

/**
 * There is one worker per core: V8's four garbage collection threads in each would only compete with the other workers.
 * One stays for the compiler. The young generation gets 10 MiB of its default 16. Measured, this is 3 to 5 MiB less per
 * worker than 12, with no difference in CPU per request.
 */
const WORKER_FLAGS = ['--v8-pool-size=1', '--max-semi-space-size=10']

/**
 * If Node has this flag, SIGUSR1 does not reach a worker. The primary runs without it: with the flag, Node does not
 * call the primary's listener either (measured with 22.23 and 24.21).
 */
const NO_DEBUGGER = '--disable-sigusr1'
if (process.allowedNodeEnvironmentFlags.has(NO_DEBUGGER)) WORKER_FLAGS.push(NO_DEBUGGER)

export interface WorkerKind {
  spawn(): WorkerHandle
  /** The part of the start message about what a worker shares with the primary. */
  readonly shares: Pick<StartMessage, 'segment' | 'listenFd' | 'stdoutFd'>
}

/** @param listenFd null: threads */
export function workerKind(segment: Segment, listenFd: number | null, maxHeaderBytes: number): WorkerKind {
  if (listenFd === null) {
    return {
      spawn: () => spawnThread(maxHeaderBytes + MOST_PROXY_HEADER_BYTES),
      shares: { segment: segmentHandle(segment), listenFd: null, stdoutFd: 1 },
    }
  }
  return {
    spawn: () => spawnProcess(segment, listenFd, maxHeaderBytes + MOST_PROXY_HEADER_BYTES),
    shares: {
      segment: segmentHandle(segment, { fd: WORKER_SEGMENT_FD, liveFd: WORKER_LIVE_FD }),
      listenFd: WORKER_LISTEN_FD,
      stdoutFd: WORKER_STDOUT_FD,
    },
  }
}

function spawnProcess(segment: Segment, listenFd: number, maxHeaderBytes: number): WorkerHandle {
  let child: ChildProcess
  try {
    child = fork(processEntry, [], {
      // Secrets may be any bytes. JSON would do for them, but would not distinguish undefined from null.
      serialization: 'advanced',
      stdio: ['ignore', 'ignore', 'inherit', 'ipc', segment.fd, listenFd, segment.liveFd, 1],
      env: { ...process.env, [HEADERS_VARIABLE]: String(maxHeaderBytes) },
      execArgv: [...process.execArgv, ...WORKER_FLAGS],
    })
  } catch (error) {
    // Node throws some system errors, such as out of memory.
    const { message } = error as Error
    return neverStarted(() => message)
  }
  const { pid } = child
  if (pid === undefined) {
    // Others, such as a lack of descriptors or processes, are an 'error' event without 'exit'.
    let why = 'it cannot be started'
    child.on('error', (error) => {
      why = error.message
    })
    return neverStarted(() => why)
  }
  // A broken channel leads to 'exit'; without this listener it would end the primary too.
  child.on('error', () => {})
  return {
    pid,
    send: (message) => {
      if (child.connected) child.send(message, () => {})
    },
    kill: () => child.kill('SIGKILL'),
    onMessage: (listener) => child.on('message', (message) => listener(message as FromWorker)),
    onExit: (listener) => child.on('exit', (code, signal) => listener(signal ?? `exit code ${code}`)),
  }
}

/** A process that could not start: it exits as soon as a listener is added. */
function neverStarted(why: () => string): WorkerHandle {
  return {
    pid: 0,
    send: () => {},
    kill: () => {},
    onMessage: () => {},
    onExit: (listener) => void setImmediate(() => listener(why())),
  }
}

function spawnThread(maxHeaderBytes: number): WorkerHandle {
  process.env[HEADERS_VARIABLE] = String(maxHeaderBytes)
  // The addon closes descriptors that the thread opened: with tracking, Node would close whatever has those numbers
  // when the thread ends.
  let thread: Worker
  try {
    thread = new Worker(threadEntry, { trackUnmanagedFds: false })
  } catch (error) {
    const { message } = error as Error
    return neverStarted(() => message)
  }
  let problem = ''
  thread.on('error', (error) => {
    problem = (error as Error).message
  })
  return {
    pid: process.pid,
    send: (message) => thread.postMessage(message),
    kill: () => void thread.terminate(),
    onMessage: (listener) => thread.on('message', (message) => listener(message as FromWorker)),
    onExit: (listener) => thread.on('exit', (code) => listener(problem === '' ? `exit code ${code}` : problem)),
  }
}
