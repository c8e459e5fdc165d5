// One of several replicas of a service, which fails in a way that the test chooses, and notes when requests came.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** How it treats requests. `some-500`: every fifth gets 500. `slow`: takes ten times as long. */
export type Manner = 'well' | '503' | 'hang' | 'reset' | 'slow' | 'some-500'

export class Replica {
  manner: Manner = 'well'
  /** performance.now() of each request. */
  readonly arrivals: number[] = []
  private readonly server = createServer((request, response) => this.serve(request, response))

  /** @param takesMs how long it takes for a response */
  private constructor(private readonly takesMs: number) {
    this.server.keepAliveTimeout = 60_000
  }

  static async start(takesMs: number): Promise<Replica> {
    const replica = new Replica(takesMs)
    await new Promise<void>((resolve) => replica.server.listen(0, '127.0.0.1', resolve))
    return replica
  }

  get url(): string {
    return `http://127.0.0.1:${(this.server.address() as AddressInfo).port}`
  }

  /** Requests that came within a span of performance.now(). */
  between(fromMs: number, toMs: number): number {
    return this.arrivals.filter((at) => at >= fromMs && at < toMs).length
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.server.close(() => resolve())
      this.server.closeAllConnections()
    })
  }

  private serve(request: IncomingMessage, response: ServerResponse): void {
    this.arrivals.push(performance.now())
    request.resume()
    const { manner } = this
    if (manner === 'hang') return
    if (manner === 'reset') return void request.socket.resetAndDestroy()
    const fails = manner === '503' || (manner === 'some-500' && this.arrivals.length % 5 === 0)
    const status = !fails ? 200 : manner === '503' ? 503 : 500
    setTimeout(
      () => {
        response.writeHead(status, { 'content-type': 'text/plain' })
        response.end(`${status}\n`)
      },
      manner === 'slow' ? this.takesMs * 10 : fails ? 0 : this.takesMs,
    )
  }
}
