// How long a client waits for its response, where it says so: x-timeout-ms or grpc-timeout. The client's side reads the
// fields (downstream/uws/accept.ts); the proxy handler keeps to the deadline, and tells the service what is left of it.
// Pure; runs only for requests that have one of the fields.

/** A service that is told of less could not answer in time. */
const LEAST_MS = 1

const MS = /^[0-9]{1,10}$/
/** The format of gRPC over HTTP/2: up to eight digits, and a unit. */
const GRPC = /^([0-9]{1,8})([HMSmun])$/
const GRPC_UNIT_US: Readonly<Record<string, number>> = { H: 3600e6, M: 60e6, S: 1e6, m: 1000, u: 1, n: 1 / 1000 }
const MOST_GRPC = 99_999_999

/** Of x-timeout-ms, in microseconds; -1 for a value that is no number of milliseconds. */
export function timeoutMsField(value: string): number {
  return MS.test(value) ? Number(value) * 1000 : -1
}

/** Of grpc-timeout, in microseconds; -1 for a value that gRPC does not know. */
export function grpcTimeoutField(value: string): number {
  const match = GRPC.exec(value)
  return match === null ? -1 : Number(match[1]) * GRPC_UNIT_US[match[2]!]!
}

/** As grpc-timeout says it, in the finest unit from milliseconds on that has room for it. */
export function grpcTimeout(ms: number): string {
  if (ms <= MOST_GRPC) return `${ms}m`
  const seconds = Math.floor(ms / 1000)
  return seconds <= MOST_GRPC ? `${seconds}S` : `${Math.min(MOST_GRPC, Math.floor(seconds / 3600))}H`
}

export class ClientDeadline {
  /** On the segment's clock: the response is of no use from then on. */
  readonly untilUs: number
  /** What the service is told with the attempt that begins. */
  leftMs = 0
  private toldUs = 0

  constructor(untilUs: number) {
    this.untilUs = untilUs
  }

  /** The earlier one. @param timeoutUs of one more field, or -1: it says nothing */
  static earlier(former: ClientDeadline | null, startUs: number, timeoutUs: number): ClientDeadline | null {
    if (timeoutUs < 0 || (former !== null && former.untilUs <= startUs + timeoutUs)) return former
    return new ClientDeadline(startUs + timeoutUs)
  }

  /** An attempt begins. False: it is too late for that. @param serviceLeftUs what is left of the service's total */
  begin(nowUs: number, serviceLeftUs: number): boolean {
    this.leftMs = Math.floor(Math.min(this.untilUs - nowUs, serviceLeftUs) / 1000)
    this.toldUs = nowUs
    return this.leftMs >= LEAST_MS
  }

  /** Another attempt begins beside the one under way. */
  beginAnother(nowUs: number): void {
    this.leftMs = Math.max(LEAST_MS, this.leftMs - Math.ceil((nowUs - this.toldUs) / 1000))
    this.toldUs = nowUs
  }
}
