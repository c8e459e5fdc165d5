// What a forked worker process or a worker thread runs: it waits for its start message, builds the worker, listens, beats, and leaves
// when it is told to or when the primary is gone.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { parentPort } from 'node:worker_threads'
import { compile } from '../config/compile.js'
import { type Listener, listenInherited, listenShared } from '../ingress/listen.js'
import { uwsVersion } from '../ingress/uws.js'
import { AddressCounts } from '../state/address-counts.js'
import { WorkerCounters, WorkerTable } from '../state/counters.js'
import { attachSegment } from '../state/segment.js'
import { createAccessLog } from '../telemetry/access-log.js'
import { createLog } from '../telemetry/log.js'
import { createWorker } from '../worker.js'
import type { FromWorker, StartMessage, ToWorker } from './messages.js'

/** A tenth of the time after which the primary takes a worker for hung. */
const HEARTBEAT_MS = 200

/** How often a drain looks whether the last answers are through the acceptor's relay. */
const SETTLE_MS = 20

const send = (message: FromWorker): void => {
  if (parentPort !== null) parentPort.postMessage(message)
  else if (process.connected) process.send!(message)
}

/** A thread must not end its process; process.exit() in a thread ends the thread alone. */
function leave(code: number): void {
  process.exit(code)
}

function fail(message: string): void {
  send({ type: 'failed', message })
  // The message must be out before the channel goes.
  setImmediate(() => leave(1))
}

async function start(message: StartMessage): Promise<() => void> {
  const { settings, slot } = message
  const log = createLog({ level: settings.logLevel, worker: slot })
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'uncaught exception')
    fail(`uncaught exception: ${error.message}`)
  })
  const table = compile(message.config, settings)
  const segment = attachSegment(message.segment)
  const slots = new WorkerTable(segment, message.spec.workers)
  const counters = new WorkerCounters(segment, slots, slot, table.routes.length)
  const accessLog = createAccessLog(settings.accessLog, {
    onTrouble: (error) => {
      if (error === null) log.info('access log is written again')
      else log.error({ err: error }, 'access log cannot be written')
    },
  })
  const worker = createWorker({ slot, table, settings, segment, counters, accessLog, log })

  const loopDelay = monitorEventLoopDelay({ resolution: 20 })
  loopDelay.enable()
  const beat = (): void => {
    counters.beat(segment.nowUs(), loopDelay.max / 1000, accessLog?.dropped ?? 0)
    loopDelay.reset()
  }
  beat()
  setInterval(beat, HEARTBEAT_MS)

  slots.listening(slot)
  const listener: Listener =
    message.listenFd === null
      ? await listenShared(worker.peers.anyone, settings.host, message.port)
      : listenInherited(worker.peers, {
          fd: message.listenFd,
          port: message.port,
          counts: slots.connections,
          self: slot,
          tallies: slots.turnedAway(slot),
          addresses: new AddressCounts(segment),
          settings,
          onError: (code) => log.error({ code }, 'cannot accept connections for the moment'),
        })
  send({ type: 'listening', port: listener.port, uwsVersion })

  let draining = false
  return () => {
    if (draining) return
    draining = true
    slots.draining(slot)
    listener.close()
    const late = setTimeout(() => {
      log.warn('drain time over: cutting what is still in flight')
      done()
    }, settings.drainTimeoutMs)
    void worker.drain().then(function settle(): void {
      if (listener.onTheirWay() > 0) setTimeout(settle, SETTLE_MS)
      else done()
    })
    function done(): void {
      clearTimeout(late)
      worker.close()
      if (accessLog === null) leave(0)
      else accessLog.close(() => leave(0))
    }
  }
}

let drain: (() => void) | null = null

function receive(message: ToWorker): void {
  if (message.type === 'drain') {
    if (drain === null) leave(0)
    else drain()
    return
  }
  start(message).then(
    (stop) => {
      drain = stop
    },
    (error: Error) => fail(error.message),
  )
}

if (parentPort !== null) parentPort.on('message', receive)
else {
  process.on('message', (message) => receive(message as ToWorker))
  // The primary is gone, however it went: serve what is in flight, leave the port to a successor.
  process.on('disconnect', () => (drain === null ? leave(1) : drain()))
  // A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group: the primary decides when to drain.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})
}
