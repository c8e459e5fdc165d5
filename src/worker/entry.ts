// What a forked worker process or a worker thread runs: it waits for its start message, builds the worker, listens,
// beats, and leaves when it is told to or when the primary is gone.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { parentPort } from 'node:worker_threads'
import type { TlsMaterial } from '../config/certificates.js'
import { compile } from '../config/compile.js'
import { type Listener, listenInherited, listenShared } from '../downstream/uws/listen.js'
import { uwsVersion } from '../downstream/uws/load.js'
import { usePatches } from '../downstream/uws/patches.js'
import { AddressCounts } from '../state/address-counts.js'
import { WorkerCounters } from '../state/counters.js'
import { attachSegment } from '../state/segment.js'
import { TURNED_AWAY, WorkerTable } from '../state/worker-table.js'
import { createAccessLog } from '../telemetry/access-log.js'
import { createLog } from '../telemetry/log.js'
import { descriptorLimit, openDescriptors, planDescriptors, Refusals } from './descriptors.js'
import { createWorker } from './generations.js'
import type { DrainMessage, EndpointsMessage, FromWorker, Generation, StartMessage, ToWorker } from './messages.js'

/** A tenth of the time after which the primary takes a worker for hung. */
const HEARTBEAT_MS = 200
/** Reading it costs a system call. */
const MEMORY_BEATS = 5
/** How long a worker without a primary waits for idle connections: clients that come back reach the next gateway. */
const ORPHAN_IDLE_MS = 1000

/** How often a drain looks whether the last answers are through the acceptor's relay. */
const SETTLE_MS = 20

const send = (message: FromWorker): void => {
  if (parentPort !== null) parentPort.postMessage(message)
  // A channel that breaks now emits 'disconnect'. Without a callback, send() would also throw an uncaught exception.
  else if (process.connected) process.send!(message, () => {})
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

/** Resident memory; the last known figure where no descriptor is left to read it. */
function residentBytes(before: number): number {
  try {
    return process.memoryUsage.rss()
  } catch {
    return before
  }
}

interface Started {
  readonly isSocketShared: boolean
  reload(generation: Generation): void
  changeEndpoints(message: EndpointsMessage): void
  useCertificates(certificates: TlsMaterial): void
  reopenLogs(number: number): void
  drain(how: Pick<DrainMessage, 'last' | 'idleMs'>): void
}

async function start(message: StartMessage): Promise<Started> {
  const { settings, slot, spec } = message
  const { log, reopen: reopenLog } = createLog({ level: settings.logLevel, worker: slot, target: settings.log })
  process.on('uncaughtException', (error) => {
    log.fatal({ err: error }, 'uncaught exception')
    fail(`uncaught exception: ${error.message}`)
  })
  const segment = attachSegment(message.segment)
  const slots = new WorkerTable(segment, spec.workers)
  const counters = new WorkerCounters(segment, slots, slot, spec.routes)
  const onTrouble = (error: Error | null): void => {
    if (error === null) log.info('access log is written again')
    else log.error({ err: error }, 'access log cannot be written')
  }
  const accessLog = createAccessLog(settings.accessLog, { onTrouble }, message.stdoutFd)
  const limit = descriptorLimit()
  const sharers = parentPort === null ? 1 : settings.workers
  // Counted before there are connections. The plan has spare descriptors for what threads open later.
  const open = openDescriptors()
  const plan = (endpoints: number) => planDescriptors(limit, settings, endpoints, sharers, open)
  let room = 0
  const tallies = slots.turnedAway(slot)
  const lacksDescriptors = TURNED_AWAY.indexOf('descriptors')
  const refusals = new Refusals(log, limit, tallies[lacksDescriptors]!)
  let serves = message.generation.number
  const tell = (): void => send({ type: 'serves', generation: serves, oldest: worker.oldest })
  const { relays } = await usePatches({
    settings,
    tallies: counters.gate,
    accepts: message.listenFd !== null,
    secure: message.certificates !== null,
    warn: (fields, text) => log.warn(fields, text),
  })
  const worker = createWorker({
    owner: message.owner,
    settings,
    segment,
    slot,
    spec,
    counters,
    accessLog,
    log,
    certificates: message.certificates,
    minTlsVersion: message.generation.config.tls?.minVersion ?? '',
    // With a native acceptor none comes this far: it refuses connections by itself.
    accepts: (connections) => {
      if (message.listenFd !== null || connections <= room) return true
      tallies[lacksDescriptors]!++
      return false
    },
    onRetired: tell,
  })
  const makeRoom = (endpoints: number): void => {
    room = plan(endpoints).room
    listener?.makeRoom(room)
  }
  const use = ({ number, config, slots }: Generation): void => {
    const table = compile(config, settings, slots)
    worker.use(number, table)
    serves = number
    makeRoom(table.endpoints.length)
  }
  let listener: Listener | null = null
  use(message.generation)

  const loopDelay = monitorEventLoopDelay({ resolution: 20 })
  loopDelay.enable()
  let beats = 0
  let memoryBytes = 0
  const beat = (): void => {
    // For a thread it would be the memory of the whole process.
    if (beats++ % MEMORY_BEATS === 0 && parentPort === null) memoryBytes = residentBytes(memoryBytes)
    refusals.tell(tallies[lacksDescriptors]!)
    counters.beat(segment.nowUs(), loopDelay.max / 1000, accessLog?.dropped ?? 0, memoryBytes, worker.bodyBytes)
    loopDelay.reset()
    worker.closeUnusedOfDrained()
  }
  beat()
  setInterval(beat, HEARTBEAT_MS)

  slots.listening(slot)
  listener =
    message.listenFd === null
      ? await listenShared(worker.peers.anyone, settings.host, message.port)
      : listenInherited(worker.peers, {
          fd: message.listenFd,
          port: message.port,
          counts: slots.connections,
          self: slot,
          tallies,
          addresses: new AddressCounts(segment),
          settings,
          secure: message.certificates !== null,
          room,
          highestFd: plan(0).highestFd,
          relays,
          onError: (code) => refusals.acceptFailed(code),
          onException: (error) => log.error({ err: error }, 'a connection was closed: an exception as it was accepted'),
        })
  send({ type: 'listening', port: listener.port, uwsVersion })

  let draining = false

  async function useCertificates(next: TlsMaterial): Promise<void> {
    try {
      worker.useCertificates(next)
      if (message.listenFd !== null || draining) return
      // uWS accepts by itself, for the app that was told to: the next one listens beside it, then alone.
      const former = listener!
      listener = await listenShared(worker.peers.anyone, settings.host, former.port)
      void former.close(false, 0)
    } catch (error) {
      log.error({ err: error }, 'certificates cannot be used: the former ones stay')
    }
  }

  return {
    isSocketShared: message.isSocketShared,
    useCertificates: (next) => void useCertificates(next),
    reload(generation) {
      use(generation)
      tell()
    },
    changeEndpoints({ change, service, endpoints, slots, total }) {
      worker.setEndpoints(service, endpoints, slots)
      makeRoom(total)
      send({ type: 'endpointsChanged', change })
    },
    reopenLogs(number) {
      const problem = reopenLog()
      const done = (other: string): void => {
        send({ type: 'reopened', number, problems: [problem, other].filter((text) => text !== '') })
      }
      if (accessLog === null) done('')
      else accessLog.reopen(done)
    },
    drain({ last, idleMs }) {
      if (draining) return
      draining = true
      slots.draining(slot)
      const late = setTimeout(() => {
        log.warn('drain time over: cutting what is still in flight')
        done()
      }, settings.drainTimeoutMs)
      const noMoreCome = listener!.close(last, idleMs)
      void worker.drain(idleMs, noMoreCome).then(function settle(): void {
        if (listener!.onTheirWay() > 0) setTimeout(settle, SETTLE_MS)
        else done()
      })
      function done(): void {
        clearTimeout(late)
        worker.close()
        if (accessLog === null) leave(0)
        else accessLog.close(() => leave(0))
      }
    },
  }
}

/** Null until there is a start message; then everything waits for it. */
let started: Promise<Started | null> | null = null

function receive(message: ToWorker): void {
  if (message.type === 'start') {
    started = start(message).catch((error: Error) => {
      fail(error.message)
      return null
    })
  } else if (started === null) leave(0)
  else if (message.type === 'drain') void started.then((worker) => worker?.drain(message))
  else if (message.type === 'reopenLogs') void started.then((worker) => worker?.reopenLogs(message.number))
  else if (message.type === 'endpoints') void started.then((worker) => worker?.changeEndpoints(message))
  else if (message.type === 'certificates') void started.then((worker) => worker?.useCertificates(message.certificates))
  else void started.then((worker) => worker?.reload(message.generation))
}

if (parentPort !== null) parentPort.on('message', receive)
else {
  process.on('message', (message) => receive(message as ToWorker))
  // The primary is gone: finish what is in flight, and leave the port to a successor.
  process.on('disconnect', () => {
    if (started === null) leave(1)
    else void started.then((worker) => worker?.drain({ last: !worker.isSocketShared, idleMs: ORPHAN_IDLE_MS }))
  })
  // A terminal's Ctrl-C and a service manager's SIGTERM reach the whole group: the primary decides when to drain.
  process.on('SIGINT', () => {})
  process.on('SIGTERM', () => {})
}
