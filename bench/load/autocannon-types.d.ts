// The part of autocannon the harness uses; it ships no types.
declare module 'autocannon' {
  interface Client {
    on(event: 'headers', listener: (head: { statusCode: number }) => void): void
    on(event: 'response', listener: (status: number, bytes: number, responseTimeMs: number) => void): void
  }
  interface Options {
    url: string
    method: string
    headers: Record<string, string>
    body?: Buffer
    connections: number
    duration: number
    reconnectRate?: number
    setupClient: (client: Client) => void
  }
  interface Result {
    errors: number
    timeouts: number
  }
  interface Run extends PromiseLike<Result> {
    stop(): void
  }
  export default function autocannon(options: Options): Run
}
