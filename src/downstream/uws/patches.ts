// Which of the patches to uWebSockets.js (native/src/uws) this worker uses: those whose proof holds (proofs.ts). Runs
// once, before the worker makes its apps. Says once of each patch that is missing what that costs. Knows nothing of
// requests.
import { type Gate, type Native, native } from '../../../native/index.js'
import type { Settings } from '../../config/settings.js'
import { giveUpGate, isLastWrite, openedGate, openGate } from './gate.js'
import { proveDelivery, proveGate, proveHandlers, proveRelay, proveSyscalls } from './proofs.js'

/** What it costs to run without a patch, as the end of a log line. docs/framing.md says more. */
const COSTS = {
  handlers: 'chunked requests are refused: no gate before the parser',
  gate: 'chunked requests are refused: no gate before the parser',
  delivery: "uWebSockets.js waits for a connection's first bytes again",
  syscalls: 'each connection costs more system calls',
  relay: 'requests of HTTP/1.0 get 505',
} as const

type GateSettings = Pick<Settings, 'headerTimeoutMs' | 'idleTimeoutMs' | 'maxHeaderBytes'>

export interface PatchOptions {
  readonly settings: GateSettings & Pick<Settings, 'uwsPatches'>
  /** Where the gate counts what it refuses. */
  readonly tallies: Float64Array
  /** The native acceptor serves this worker, which is a process then. */
  readonly accepts: boolean
  /** The listener speaks TLS. */
  readonly secure: boolean
  readonly warn: (fields: object, text: string) => void
}

/** As many as a gate counts: what it refuses in the proofs is nobody's request. */
const COUNTS = 12

export interface Patches {
  /** Requests of HTTP/1.0 are relayed. */
  readonly relays: boolean
}

export async function usePatches({ settings, tallies, accepts, secure, warn }: PatchOptions): Promise<Patches> {
  if (settings.uwsPatches === 'off') {
    const costs = [
      COSTS.gate,
      ...(accepts ? [COSTS.syscalls] : []),
      ...(accepts && !secure ? [COSTS.delivery, COSTS.relay] : []),
    ]
    warn({ reason: 'TIDEGATE_UWS_PATCHES=off' }, `uWebSockets.js runs without patches: ${costs.join('; ')}`)
    return { relays: false }
  }
  if (native === null) {
    warn({ reason: 'the native addon is not there' }, COSTS.gate)
    return { relays: false }
  }
  /** False, and the worker says so, where the patch does not do what it should. */
  const holds = async (patch: keyof typeof COSTS, prove: () => Promise<void>): Promise<boolean> => {
    try {
      await prove()
      return true
    } catch (error) {
      warn({ patch, reason: (error as Error).message }, COSTS[patch])
      return false
    }
  }

  if (accepts) await spareSyscalls(native, holds)
  const gate = await proven(native, settings, secure, holds)
  if (gate === null) giveUpGate()
  else if (accepts && !secure) {
    const delivers = await holds('delivery', () => proveDelivery(native!, gate))
    gate.takeFirstBytes(delivers)
  }
  const relays = accepts && !secure && (await holds('relay', () => proveRelay(native!, gate)))
  gate?.countRefusals(tallies)
  return { relays }
}

type Holds = (patch: keyof typeof COSTS, prove: () => Promise<void>) => Promise<boolean>

/** Before the others, so that they are proven with it. */
async function spareSyscalls(addon: Native, holds: Holds): Promise<void> {
  const proof = async (): Promise<void> => {
    if (!addon.spareSyscalls(isLastWrite)) throw new Error('uWebSockets.js has no table of imports to change')
    await proveSyscalls(addon)
  }
  if ((await holds('syscalls', proof)) || addon.unspareSyscalls()) return
  throw new Error('uWebSockets.js keeps the connection of a proof that failed: set TIDEGATE_UWS_PATCHES=off')
}

/** Null: there is no gate. */
async function proven(addon: Native, settings: GateSettings, secure: boolean, holds: Holds): Promise<Gate | null> {
  const handlers = async (): Promise<void> => {
    const problem = openGate(new Float64Array(COUNTS), settings)
    if (problem !== '') throw new Error(problem)
    await proveHandlers(addon, openedGate(), secure)
  }
  const all = (await holds('handlers', handlers)) && (await holds('gate', () => proveGate(addon, openedGate())))
  return all ? openedGate() : null
}
