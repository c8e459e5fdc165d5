// Proves, before a worker listens, that the patches of native/src/uws do what they should with the uWebSockets.js that
// is loaded: an app of the proofs' own serves a few requests over socket pairs, in a few turns of the loop. Each proof
// throws an Error that says what does not hold, and leaves no descriptor, connection or count behind. What follows from
// that patches.ts decides. Knows no Exchange.
import type { Gate, Native } from '../../../native/index.js'
import { HEAD } from '../../exchange/fields.js'
import { uWS } from './load.js'
import { Client, ProofApp, quiet, until } from './proof-app.js'

const GET = 'GET /get HTTP/1.1\r\nHost: proof\r\n\r\n'

/** Of heads that the gate refuses. Some of them uWebSockets.js refuses as well, in its own words. */
const BAD_FIELDS = [
  'Host: a\r\nHost: b',
  'Host: a\r\nX y: z',
  'Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked',
]

const REFUSAL = /^HTTP\/1\.1 400 .*\r\n(?:.+\r\n)*Content-Type: application\/problem\+json\r\n/

function hold(condition: boolean, what: string): void {
  if (!condition) throw new Error(what)
}

/** The table of imports: calls for connections are ours, all others are passed through, and a connection is served. */
export async function proveSyscalls(native: Native): Promise<void> {
  const fault = native.proveSyscalls()
  hold(fault === '', `${fault}() is not exchanged, or does not pass other calls through`)
  const app = new ProofApp(native, null, false)
  try {
    const { client, fd } = app.connect()
    hold(native.isSpared(fd), 'the addon does not watch a connection')
    for (let n = 1; n <= 2; n++) {
      client.send(GET)
      await until(() => app.requests.length === n, 'a request does not arrive')
      app.answer()
      await until(() => client.text.endsWith('answer'), 'a response does not arrive')
      client.forget()
    }
    client.close()
    await until(() => !native.isSpared(fd), 'a connection stays when its client has closed it')
  } finally {
    app.close()
    await quiet()
  }
}

/** The handlers of a socket context: ours are in the places of uWebSockets.js' own, are called, and call these. */
export async function proveHandlers(native: Native, gate: Gate, secure: boolean): Promise<void> {
  // Over TLS a proof would need a handshake: it is left at finding the handlers.
  if (secure) {
    const app = uWS.SSLApp({})
    try {
      gate.guard(app.getDescriptor(), true, false)
    } finally {
      app.close()
    }
  }
  const app = new ProofApp(native, gate, false)
  try {
    const { client } = app.connect()
    client.send(GET)
    await until(() => app.requests.length === 1, 'a request does not arrive')
    hold(app.requests[0]!.head !== null, 'the handler for data is not called')
    hold(gate.connections() === 1, 'the gate does not know the connection')
    app.answer()
    await until(() => client.text.endsWith('answer'), 'a response does not arrive')
    client.close()
    await until(() => gate.connections() === 0, 'the handler for the end of a connection is not called')
  } finally {
    app.close()
    await quiet()
  }
}

/** The gate: what passes it, in which form, and what does not. */
export async function proveGate(native: Native, gate: Gate): Promise<void> {
  const app = new ProofApp(native, gate, false)
  const { requests } = app
  try {
    const { client } = app.connect()

    // It hands a head in two parts on whole, with names in lower case.
    client.send('GET /a?b HTTP/1.1\r\nHo')
    await quiet()
    client.send('st: proof\r\nX-Y: z\r\n\r\n')
    await until(() => requests.length === 1, 'a head in two parts does not arrive')
    hold(requests[0]!.head === 'GET /a?b HTTP/1.1\r\nhost: proof\r\nx-y: z\r\n\r\n', 'a head in two parts is misread')
    hold(gate.marks[HEAD.fields] === 2, 'the fields of a head are not found')
    app.answer()
    await until(() => client.text.endsWith('answer'), 'a response does not arrive')

    // A chunked body comes without extensions and trailers. The request behind it waits for the response.
    client.forget()
    const chunks = '5;x=1\r\nhello\r\n0\r\nX: GET / HTTP/1.1\r\n\r\n'
    client.send(`POST /b HTTP/1.1\r\nHost: proof\r\nTransfer-Encoding: chunked\r\n\r\n${chunks}${GET}`)
    await until(() => requests[1]?.isWhole === true, 'a chunked body does not end')
    hold(requests[1]!.body === 'hello', 'a chunked body is misread')
    await quiet()
    hold(requests.length === 2, 'a request does not wait for the response before it')
    app.answer()
    await until(() => requests.length === 3, 'a request that has waited does not arrive')
    hold(requests[2]!.path === '/get', 'a chunked body ends in the wrong place')
    app.answer()
    await until(() => client.text.split('answer').length === 3, 'a response does not arrive')

    // 100 Continue is sent once, when the gate is told to.
    client.forget()
    client.send('POST /d HTTP/1.1\r\nHost: proof\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
    await until(() => requests.length === 4, 'a request with Expect does not arrive')
    await quiet()
    hold(client.text === '', '100 Continue is sent too early')
    gate.continueRequest(requests[3]!.connection)
    await until(() => client.text !== '', '100 Continue is not sent')
    hold(client.text === 'HTTP/1.1 100 Continue\r\n\r\n', '100 Continue is sent twice')
    client.send('ab')
    await until(() => requests[3]!.isWhole, 'a body of known length does not end')
    hold(requests[3]!.body === 'ab', 'a body of known length is misread')
    app.answer()
    await until(() => client.text.endsWith('answer'), 'a response does not arrive')

    // It tells of a malformed chunk, and ends the connection.
    client.send('POST /e HTTP/1.1\r\nHost: proof\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n')
    await until(() => client.isEnded, 'a malformed chunk does not end its connection')
    hold(requests[4]?.isBad === true, 'JavaScript is not told of a malformed chunk')

    for (const fields of BAD_FIELDS) {
      const { client } = app.connect()
      client.send(`POST /f HTTP/1.1\r\n${fields}\r\n\r\n`)
      await until(() => client.isEnded || requests.length > 5, 'a malformed head does not end its connection')
      hold(requests.length === 5 && REFUSAL.test(client.text), 'a malformed head is not refused')
    }
  } finally {
    app.close()
    await quiet()
  }
}

/** First bytes that the acceptor has received go in with their connection. */
export async function proveDelivery(native: Native, gate: Gate): Promise<void> {
  await throughDoor(native, gate, GET, async (client, app) => {
    const { requests } = app
    await until(() => requests.length === 1, 'a request does not arrive')
    hold(requests[0]!.path === '/get', 'a request is misread')
    app.answer()
    await until(() => client.text.endsWith('answer'), 'a response does not arrive')
  })
}

const HTTP_1_0 = 'PROXY TCP4 192.0.2.7 192.0.2.1 1 2\r\nPOST /h HTTP/1.0\r\nContent-Length: 2\r\n\r\nab'
const ANSWER_TO_1_0 = /^HTTP\/1\.1 200 OK\r\n(?:(?!transfer-encoding).+\r\n)*\r\nanswer$/i

/**
 * An exchange of HTTP/1.0: it arrives as one of 1.1 with its client's address, and its response comes back without
 * chunks.
 */
export async function proveRelay(native: Native, gate: Gate | null): Promise<void> {
  await throughDoor(native, gate, HTTP_1_0, async (client, relayed) => {
    const { requests } = relayed
    await until(() => requests[0]?.isWhole === true || client.isEnded, 'a request does not arrive')
    const [one] = requests
    if (one?.isWhole !== true) throw new Error('a request is refused')
    hold(one.method === 'POST' && one.path === '/h' && one.body === 'ab', 'a request is misread')
    hold(one.address === '192.0.2.7', "a client's address does not arrive")
    relayed.answer(['ans', 'wer'])
    await until(() => client.isEnded, 'a response does not end')
    hold(ANSWER_TO_1_0.test(client.text), 'a response is misread')
  })
}

/** Has a request accepted as the worker's are, by an acceptor and an app of its own. */
async function throughDoor(
  native: Native,
  gate: Gate | null,
  request: string,
  prove: (client: Client, app: ProofApp) => Promise<void>,
): Promise<void> {
  const isRelayed = request === HTTP_1_0
  const app = new ProofApp(native, gate, isRelayed)
  const [listener, fd] = native.queuedConnection()
  const client = new Client(fd)
  client.send(request)
  const failed: Error[] = []
  const acceptor = native.accept({
    fd: listener,
    counts: new Int32Array(1),
    self: 0,
    onConnection: (connection, _address, relayed) => {
      if (relayed === isRelayed) app.app.adoptSocket(connection)
      else native.closeFd(connection)
      return undefined
    },
    door: {
      headTimeoutMs: 1000,
      tallies: new Float64Array(8),
      isTrusted: () => isRelayed,
      proxyProtocol: true,
      maxConnections: 0,
      maxPerAddress: 0,
      places: new Int32Array(0),
      addressSeed: 0,
      tls: false,
      room: 1000,
      highestFd: 2 ** 30,
      relays: true,
      onException: (error) => failed.push(error as Error),
    },
    onError: () => {},
  })
  try {
    await prove(client, app)
    if (failed[0] !== undefined) throw failed[0]
  } finally {
    client.close()
    acceptor.close(0)
    app.close()
    await quiet()
  }
}
