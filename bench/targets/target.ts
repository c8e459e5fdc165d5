// What the harness knows of a target: whether it is on this machine, and how to start one that does a given job. Each
// file beside this one is one of them. A target never measures itself.
import type { ChildProcess } from 'node:child_process'

/** What both sides of a comparison are asked to do, so that they are asked the same. */
export interface Profile {
  /**
   * `bare` forwards. `whole` checks x-m, limits, watches a breaker, writes a JSON access log, counts and gives request
   * ids.
   */
  readonly job: 'bare' | 'whole'
  /** Processes that serve. One is pinned; with as many as there are cores the machine is used as a whole. */
  readonly workers: number
  /** The CPU list the target is held to, or null. */
  readonly cpus: string | null
  /** tidegate alone: bodies over this many bytes are hashed in its thread pool. */
  readonly offloadBytes?: number
}

export interface Place {
  readonly directory: string
  readonly port: number
  readonly adminPort: number
  readonly originPort: number
}

export interface Started {
  readonly process: ChildProcess
  /** Emptied between rounds: a whole job at full speed writes gigabytes. */
  readonly accessLog: string | null
  ready(): Promise<boolean>
}

export type Availability = { readonly version: string } | { readonly missing: string; readonly install: string }

export interface Target {
  /** As printed. Two instances of one build share their family. */
  readonly name: string
  readonly jobs: readonly Profile['job'][]
  available(): Promise<Availability>
  start(profile: Profile, place: Place): Promise<Started>
}
