// Requests at a constant rate, whatever becomes of those before: clients of an outage do not wait for each other. Each
// response is kept with its times.
import { Agent, type Dispatcher, errors, request } from 'undici'

export interface Outcome {
  /** performance.now() */
  readonly sentMs: number
  /** 0: the connection was lost. */
  readonly status: number
  readonly method: string
  readonly rid: string
}

export interface SteadyOptions {
  readonly port: number
  readonly perSecond: number
  readonly seconds: number
  /** Of the request with this number. */
  readonly of?: (n: number) => {
    readonly method?: Dispatcher.HttpMethod
    readonly path?: string
    readonly body?: string
  }
  readonly headers?: Readonly<Record<string, string>>
}

/** Resolves when every request has its outcome. */
export async function steadyLoad({
  port,
  perSecond,
  seconds,
  of = () => ({}),
  headers,
}: SteadyOptions): Promise<Outcome[]> {
  const agent = new Agent({ connections: 512, pipelining: 1, headersTimeout: 60_000 })
  const total = perSecond * seconds
  const startMs = performance.now()
  const waiting: Promise<Outcome>[] = []
  const send = async (n: number): Promise<Outcome> => {
    const { method = 'GET', path = '/', body = null } = of(n)
    const sentMs = performance.now()
    const done = (status: number, rid = '') => ({ sentMs, status, method, rid })
    try {
      const response = await request(`http://127.0.0.1:${port}${path}`, { dispatcher: agent, method, body, headers })
      await response.body.dump()
      return done(response.statusCode, String(response.headers['x-rid']))
    } catch (error) {
      if (error instanceof errors.UndiciError || (error as NodeJS.ErrnoException).code === 'ECONNRESET') return done(0)
      throw error
    }
  }
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      // As many as the time says: a timer that comes late sends several.
      const due = Math.min(total, Math.floor(((performance.now() - startMs) / 1000) * perSecond))
      while (waiting.length < due) waiting.push(send(waiting.length))
      if (waiting.length < total) return
      clearInterval(timer)
      resolve()
    }, 2)
  })
  const outcomes = await Promise.all(waiting)
  await agent.close()
  return outcomes
}
