// Clients that ask again as soon as they have their response, whatever it is, on one connection each. Cheaper than
// load.ts, so that a gateway has more to do than its clients: it looks for no more than status and length.
import { connect, type Socket } from 'node:net'
import { type RequestParts, requestBytes } from './raw-client.js'

export interface Served {
  /** Responses of the service, and refusals. */
  readonly ok: number
  readonly refused: number
  /** In seconds, from the request to a response of the service. */
  readonly medianS: number
}

export class GreedyClients {
  private ok = 0
  private refused = 0
  private took: number[] = []
  private readonly sockets: Socket[] = []

  constructor(port: number, count: number, request: RequestParts) {
    const bytes = requestBytes(request)
    for (let i = 0; i < count; i++) this.sockets.push(this.ask(port, bytes))
  }

  private ask(port: number, bytes: Buffer): Socket {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true })
    let text = ''
    let sentMs = 0
    const send = (): void => {
      text = ''
      sentMs = performance.now()
      socket.write(bytes)
    }
    socket.setEncoding('latin1')
    socket.on('connect', send)
    socket.on('data', (chunk: string) => {
      text += chunk
      const end = text.indexOf('\r\n\r\n')
      if (end < 0) return
      const length = /\r\n(?:content-length: *(\d+)|transfer-encoding: *chunked)\r\n/i.exec(text)
      const whole = length?.[1] === undefined ? text.endsWith('0\r\n\r\n') : text.length >= end + 4 + Number(length[1])
      if (!whole) return
      const status = text.slice(9, 12)
      if (status === '200') {
        this.ok++
        this.took.push(performance.now() - sentMs)
      } else if (status === '503') this.refused++
      else throw new Error(`a status that nobody expects: ${text}`)
      send()
    })
    // The end of the load.
    socket.on('error', () => {})
    return socket
  }

  /** Since the last call. */
  take(): Served {
    const took = this.took.sort((a, b) => a - b)
    const served = { ok: this.ok, refused: this.refused, medianS: (took[took.length >> 1] ?? 0) / 1000 }
    this.ok = 0
    this.refused = 0
    this.took = []
    return served
  }

  stop(): void {
    for (const socket of this.sockets) socket.destroy()
  }
}
