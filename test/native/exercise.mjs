// Walks through every function of the addon and every way out of it, for scripts/test-native-sanitized.mjs to watch
// what it does to memory: node --expose-gc exercise.mjs ADDON. What the functions answer is the business of
// test/unit/native-*.test.ts.

import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import { createRequire } from 'node:module'
import { connect, createServer, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import { CLASSES, SERVED } from '../support/framing-cases.mjs'

const addon = process.argv[2]
const native = createRequire(import.meta.url)(addon)
const folder = mkdtempSync(join(tmpdir(), 'tidegate-exercise-'))
const path = join(folder, 'segment')
const turn = () => new Promise((resolve) => setImmediate(resolve))
const ignore = () => {}

/** Finalizers run some turns after the collection that found their object dead. */
async function collect() {
  for (let i = 0; i < 5; i++) {
    globalThis.gc()
    await turn()
  }
}

/** They take no argument, or say no whatever they are asked. */
const NEVER_THROW = [
  ...['closeFd', 'expectBody', 'readHead', 'socketPair', 'queuedConnection', 'gatedConnections'],
  ...['unspareSyscalls', 'proveSyscalls', 'isSpared'],
]

function failures() {
  symlinkSync(path, join(folder, 'symlink'))
  const values = [
    undefined,
    null,
    -1,
    0,
    1.5,
    2 ** 40,
    Number.NaN,
    '',
    'x'.repeat(9000),
    'a\0b',
    {},
    [],
    Symbol('s'),
    1n,
    ignore,
  ]
  for (const name of Object.keys(native)) {
    if (NEVER_THROW.includes(name)) continue
    for (const first of values) {
      for (const second of values) {
        if (name === 'listen' && first === '') continue
        if (name === 'openSegment' && first === null) continue
        assert.throws(
          () => native[name](first, second, first, second, first),
          `${name}(${String(first)}, ${String(second)})`,
        )
      }
    }
  }
  assert.throws(() => native.closeFd(1_000_000), { code: 'EBADF' })
  assert.throws(() => native.openSegment(join(folder, 'symlink'), 4096), { code: 'ELOOP' })
  assert.throws(() => native.openSegment(folder, 4096), { code: 'EISDIR' })
  assert.throws(() => native.openSegment('/dev/null', 4096), { code: 'EUNSAFE' })
  assert.throws(() => native.openSegment(`${folder}/${'x'.repeat(4000)}`, 4096), { code: 'ENAMETOOLONG' })
}

async function segments() {
  for (let i = 0; i < 20; i++) {
    const one = native.openSegment(path, 4096 + i * 4096)
    assert.throws(() => native.openSegment(path, 4096), { code: 'ELOCKED' })
    const two = native.replaceSegment(one.fd, path, 10_000)
    new Uint8Array(one.buffer).fill(1)
    new Uint8Array(two.buffer).fill(2)
    assert.throws(() => native.replaceSegment(two.fd, join(folder, 'symlink'), 4096), { code: 'ESTALE' })
    native.closeFd(two.fd)
    const three = native.openSegment(null, 4097)
    assert.throws(() => native.attachSegment(three.fd, 5000), { code: 'EOVERFLOW' })
    new Uint8Array(native.attachSegment(three.fd, 4097)).fill(3)
    assert.equal(new Uint8Array(three.buffer)[4096], 3)
    if (i % 5 === 0) await collect()
  }
}

async function accepting() {
  for (const host of ['127.0.0.1', '::1', '', '::', '0.0.0.0']) native.closeFd(native.listen(host, 0, 8).fd)
  const { fd, port } = native.listen('127.0.0.1', 0, 64)
  assert.throws(() => native.listen('127.0.0.1', port, 64), { code: 'EADDRINUSE' })
  const counts = new Int32Array(native.attachSegment(native.openSegment(null, 4096).fd, 4096), 0, 4)
  counts.fill(-1)
  counts[0] = 0
  counts[1] = 0 // a worker that never takes anything: connections are left to it, in vain
  const caught = []
  const onUncaught = (error) => caught.push(error.message)
  process.on('uncaughtException', onUncaught)
  let calls = 0
  const onConnection = (connection) => {
    calls++
    if (calls === 3) throw new Error('not passed on')
    counts[0]++
    const socket = new Socket({ fd: connection, readable: true, writable: true })
    socket.on('error', ignore).on('close', () => counts[0]--)
    socket.pipe(socket)
    if (calls === 4) throw new Error('passed on')
  }
  const handle = native.startAccepting(fd, counts, 0, onConnection, ignore, 0)
  const open = () => {
    const socket = connect(port, '127.0.0.1', () => socket.write('x')).on('error', ignore)
    return socket
  }
  const clients = Array.from({ length: 60 }, open)
  await Promise.all(clients.map((each) => new Promise((resolve) => each.once('data', resolve).once('close', resolve))))
  process.off('uncaughtException', onUncaught)
  assert.deepEqual(caught, ['not passed on', 'passed on'])
  for (const each of clients) each.destroy()
  native.refuseNew(handle)
  native.takeAll(handle)
  native.stopAccepting(handle, 0)
  native.stopAccepting(handle, 0)
  await collect()
  native.stopAccepting(handle, 0)

  // A buffer that is taken away while the acceptor reads it.
  const plain = new Int32Array(2)
  const second = native.listen('127.0.0.1', 0, 8)
  let got
  const accepted = new Promise((resolve) => {
    got = resolve
  })
  const other = native.startAccepting(second.fd, plain, 1, got, ignore, 0)
  structuredClone(plain.buffer, { transfer: [plain.buffer] })
  const client = connect(second.port, '127.0.0.1', () => client.write('x')).on('error', ignore)
  native.closeFd(await accepted)
  await once(client, 'close').catch(ignore)
  native.stopAccepting(other, 0)
}

const PAIRS = 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello'
const CHUNKS = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'

/** Connections that wait, are relayed, are refused, leave in the middle of each, and are there when it is over. */
async function door() {
  const { fd, port } = native.listen('127.0.0.1', 0, 256)
  const counts = new Int32Array(native.attachSegment(native.openSegment(null, 4096).fd, 4096), 0, 2)
  const places = new Int32Array(2 * 32_768)
  const tallies = new Float64Array(5)
  let served = 0
  const large = 'x'.repeat(3_000_000)
  const onConnection = (connection, _address, relayed, _announced, place) => {
    if (!relayed) counts[0]++
    const socket = new Socket({ fd: connection, readable: true, writable: true })
    socket.on('error', ignore).on('close', () => {
      if (!relayed) counts[0]--
      if (place >= 0) places[place]--
    })
    socket.on('data', (data) => {
      const text = String(data)
      if (text.includes('/cut')) return socket.destroy()
      if (text.includes('/nonsense')) return socket.end('nonsense\n\n\r\n')
      if (text.includes('/half')) return socket.end(PAIRS.slice(0, -2))
      if (text.includes('/large')) return socket.end(`HTTP/1.1 200 OK\r\n\r\n${large}`)
      if (text.includes('/silent')) return
      // One of three lines ends with its answer; the others serve on.
      if (relayed && served++ % 3 > 0) socket.write(CHUNKS)
      else socket.end(relayed ? CHUNKS : PAIRS)
    })
  }
  const trusted = (address) => address === '127.0.0.2'
  const handle = native.startAccepting(
    ...[
      fd,
      counts,
      0,
      onConnection,
      ignore,
      300,
      tallies,
      trusted,
      true,
      200,
      40,
      places,
      12345,
      false,
      1000,
      1 << 20,
      true,
      ignore,
    ],
  )
  const say = (text, from = '127.0.0.1', pieces = 1) =>
    new Promise((resolve) => {
      const socket = connect({ port, host: '127.0.0.1', localAddress: from }, async () => {
        const size = Math.ceil(text.length / pieces)
        for (let at = 0; at < text.length; at += size) {
          socket.write(text.slice(at, at + size), 'latin1')
          if (pieces > 1) await turn()
        }
      })
      socket.on('error', ignore).on('close', resolve).resume()
      if (text.includes('/left')) setTimeout(() => socket.destroy(), 20)
    })
  const kept = 'GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n'
  const header = 'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n'
  const said = []
  for (const target of ['/', '/cut', '/nonsense', '/half', '/large', '/silent/left']) {
    for (const version of ['1.0', '1.1']) said.push(`GET ${target} HTTP/${version}\r\n\r\n`)
    said.push(`POST ${target} HTTP/1.0\r\nContent-Length: 500000\r\n\r\n${'y'.repeat(500_000)}`)
  }
  said.push(
    kept.repeat(3),
    `${kept}GET / HTTP/1.1\r\n\r\n`,
    'GET / HT',
    `${kept}GET`,
    '\x16\x03\x01',
    '',
    header,
    'GET /left HTTP/1.0\r\nX',
  )
  for (const pieces of [1, 7]) await Promise.all(said.map((text) => say(text, '127.0.0.1', pieces)))
  await Promise.all(said.map((text) => say(header + text, '127.0.0.2', 3)))
  await Promise.all(said.map((text) => say(text, '127.0.0.2')))
  await Promise.all(Array.from({ length: 60 }, () => say('GET / HTTP/1.1\r\nX', '127.0.0.3')))
  // Without descriptors: lines between two exchanges go, and who comes is refused.
  native.makeRoom(handle, 0)
  await Promise.all([kept, 'GET / HTTP/1.1\r\n\r\n', 'GET / HT'].map((text) => say(text)))
  native.makeRoom(handle, 1000)
  assert.ok(
    tallies.every((count, reason) => reason === 2 || count > 0),
    String(tallies),
  )
  await collect()
  assert.deepEqual([counts[0], [...new Set(places.filter((_, i) => i % 4 === 2))]], [0, [0]])

  // Some of each when it ends: what waits is sent away, what is relayed is seen through.
  const held = say('GET / HT')
  const relayed = connect(port, '127.0.0.1', () => relayed.write('GET /silent HTTP/1.0\r\n\r\n')).on('error', ignore)
  while (native.relaysUnderWay(handle) === 0) await turn()
  native.stopAccepting(handle, 0)
  await held
  assert.equal(native.relaysUnderWay(handle), 1)
  relayed.destroy()
  while (native.relaysUnderWay(handle) > 0 || counts[0] > 0) await turn()
}

/** Descriptors from one end of a Unix socket to the other, both of them here. */
async function handover() {
  const at = join(folder, 'handover')
  const { fd, port } = native.listen('127.0.0.1', 0, 8)
  const sender = new Worker(
    `
    const { workerData, parentPort } = require('node:worker_threads')
    const native = require(workerData.addon)
    require('node:net').createServer((socket) => {
      native.sendDescriptors(socket._handle.fd, [workerData.fd, workerData.fd], 'two of them')
      socket.end()
    }).listen(workerData.at, () => parentPort.postMessage('there'))`,
    { eval: true, workerData: { addon, at, fd } },
  )
  await once(sender, 'message')
  const { fd: connection, descriptors, text } = native.receiveDescriptors(at)
  assert.equal(text, 'two of them')
  assert.equal(descriptors.length, 2)
  for (const each of [connection, ...descriptors]) native.closeFd(each)
  await sender.terminate()
  native.closeFd(fd)
  assert.throws(() => native.receiveDescriptors(join(folder, 'nobody')), { code: 'ENOENT' })
  assert.throws(() => native.sendDescriptors(0, [], ''), TypeError)
  assert.ok(port > 0)
}

const ARENA = 131_072
const SENDS = 1 + 4 * 1024

/**
 * Connections that are answered, paused, cut, written more to than they take, and closed in the middle of each of
 * these: over TCP, or over a Unix socket of that path.
 */
async function wire(path) {
  // More than the kernel takes at once.
  const large = Buffer.alloc(6_000_000, 'y')
  const server = createServer({ noDelay: true }, (socket) => {
    socket.on('error', ignore).on('data', (data) => {
      const text = String(data)
      if (text.includes('reset')) path === null ? socket.resetAndDestroy() : socket.destroy()
      else if (text.includes('end')) socket.end('the end')
      else if (text.includes('large')) socket.write(large)
      else if (!text.includes('yyyy')) socket.write(data)
    })
  })
  if (path === null) server.listen(0, '127.0.0.1')
  else server.listen(path)
  await once(server, 'listening')
  const { port } = server.address()
  const seen = { bytes: 0, connected: 0, drained: 0, ended: 0, failed: 0, marked: 0 }
  const live = new Set()
  let late = null
  let rounds = 0
  const ways = ['reset', 'end', 'large', 'upload', 'close', 'pause', ...Array(25).fill('echo')]
  const close = (id) => {
    live.delete(id)
    one.close(id)
    one.close(id)
    one.write(id, 'a', large, 'b')
    one.pause(id)
    one.resume(id)
    one.remember(id, 'nobody')
  }
  const begin = () => {
    const fails = rounds++ % 20 === 19
    if (path === null) live.add(one.connect('127.0.0.1', fails ? 1 : port))
    else live.add(one.connectUnix(fails ? join(folder, 'nobody') : path))
  }
  const sends = []
  const say = (id) => {
    const way = ways[rounds++ % ways.length]
    if (way === 'upload') one.write(id, 'before', large, 'after')
    else if (way === 'close') close(id)
    else {
      if (way === 'pause') one.pause(id)
      one.remember(id, way)
      sends.push([id, way])
    }
  }
  const onTurn = (records) => {
    const words = new Int32Array(one.memory, ARENA)
    words[0] = 0
    if (late !== null) late()
    for (let i = 0; i < records; i++) {
      const [id, at, length, mark] = words.subarray(1 + 4 * i, 5 + 4 * i)
      if (!live.has(id)) continue
      if (at >= 0) {
        seen.bytes += Buffer.from(one.memory, at, length).length
        if (mark !== 0) seen.marked++
        if (rounds < 4000) say(id)
        else close(id)
      } else if (at === -1) {
        seen.connected++
        say(id)
      } else if (at === -2) {
        seen.drained++
        close(id)
      } else {
        if (at === -3) seen.ended++
        else seen.failed++
        assert.ok(at === -3 || length < 0)
        close(id)
      }
    }
    for (const [i, [id, text]] of sends.entries()) words.set([id, text.length], SENDS + 2 * i)
    const texts = sends.splice(0).map(([, text]) => text)
    one.send(texts.join(''), texts.length)
    while (live.size < 100 && rounds < 4000) begin()
  }
  const one = native.openWire(ARENA, onTurn)
  for (const bad of [undefined, 1, 'x', {}, Symbol('s')]) {
    assert.throws(() => one.connect(bad, 80), TypeError)
    assert.throws(() => one.connectUnix(bad), TypeError)
    assert.throws(() => one.write(0, 'a', bad, 'b'), TypeError)
    assert.equal(one.close(bad), undefined)
    assert.equal(one.pause(bad), undefined)
    assert.equal(one.resume(bad), undefined)
    if (bad !== 'x') assert.throws(() => one.send(bad, 0), TypeError)
    if (bad !== 'x') assert.throws(() => one.remember(0, bad), TypeError)
    if (bad !== 1) assert.throws(() => one.send('', bad), TypeError)
  }
  assert.throws(() => one.connect('127.0.0.1', 65536), TypeError)
  assert.throws(() => one.connectUnix(`/${'x'.repeat(107)}`), TypeError)
  assert.throws(() => one.connectUnix('/x\0y'), TypeError)
  const longest = one.connectUnix(`/${'x'.repeat(106)}`)
  one.close(longest)
  assert.throws(() => one.send('', 1025), TypeError)
  // A text that is shorter than what it is said to consist of.
  new Int32Array(one.memory, ARENA).set([0, 2, 0, 2], SENDS)
  assert.throws(() => one.send('abc', 2), TypeError)
  new Int32Array(one.memory, ARENA).set([0, -1], SENDS)
  assert.throws(() => one.send('abc', 1), TypeError)
  one.send('x'.repeat(300_000), 0)
  begin()
  // Those that hear nothing any more make room for others.
  for (let turns = 0; rounds < 4000 || live.size > 0; turns++) {
    await turn()
    if (turns % 40 === 39) for (const id of live) if (turns++ % 5 === 0 || rounds >= 4000) close(id)
    new Int32Array(one.memory, ARENA)[0] = 1
  }
  for (const [what, count] of Object.entries(seen)) assert.ok(count > 0, what)
  // What throws is told, and the loop goes on.
  const caught = []
  const onUncaught = (error) => caught.push(error.message)
  process.on('uncaughtException', onUncaught)
  late = () => {
    late = null
    throw new Error('expected')
  }
  new Int32Array(one.memory, ARENA)[0] = 1
  while (late !== null) await turn()
  await turn()
  process.off('uncaughtException', onUncaught)
  assert.deepEqual(caught, ['expected'])
  server.close()
}

/** Threads that end with a mapping, an acceptor and a wire open: by themselves, by terminate() and by an exception. */
async function threads() {
  const code = `
    const { workerData, parentPort } = require('node:worker_threads')
    const native = require(workerData.addon)
    globalThis.segment = native.openSegment(null, 4096)
    const counts = new Int32Array(segment.buffer, 0, 2)
    const { fd, port } = native.listen('127.0.0.1', 0, 8)
    const door = [workerData.door ? 5000 : 0, new Float64Array(5), () => false, false, 10, 10, new Int32Array(2 * 32768), 1, false, 1000, 1 << 20, true, (error) => { throw error }]
    globalThis.handle = native.startAccepting(fd, counts, 0, (fd) => {
      native.closeFd(fd)
      if (workerData.end === 'exit') process.exit()
      if (workerData.end === 'throw') throw new Error('expected')
      parentPort.postMessage('took one')
    }, () => {}, ...door)
    native.closeFd(segment.fd)
    const wire = native.openWire(131072, (records) => new Int32Array(wire.memory, 131072).fill(0, 0, 1))
    for (let i = 0; i < 3; i++) wire.write(wire.connect('127.0.0.1', workerData.port), 'x', Buffer.alloc(9_000_000), 'y')
    wire.close(0)
    parentPort.postMessage(port)`
  // For their wire: takes nothing of what is sent.
  const idle = createServer((socket) => socket.on('error', ignore)).listen(0, '127.0.0.1')
  await once(idle, 'listening')
  for (const end of ['exit', 'throw', 'terminate']) {
    for (let i = 0; i < 4; i++) {
      const worker = new Worker(code, {
        eval: true,
        workerData: { addon, end, door: i % 2 === 1, port: idle.address().port },
      })
      worker.on('error', (error) => assert.equal(error.message, 'expected'))
      const exited = new Promise((resolve) => worker.once('exit', resolve))
      const [port] = await once(worker, 'message')
      // With one that waits at the door; the other is handed over in both cases.
      const held = connect(port, '127.0.0.1', () => held.write('GET / ')).on('error', ignore)
      const client = connect(port, '127.0.0.1', () => client.write('\n')).on('error', ignore)
      if (end === 'terminate') {
        await once(worker, 'message')
        await worker.terminate()
      }
      await exited
      client.destroy()
      held.destroy()
    }
  }
  idle.close()
}

/** Keys that come and go, messages up to the longest, and what is refused. */
function macs() {
  for (let i = 0; i < 200; i++) {
    const secret = Buffer.alloc(64, i)
    const key = native.hmacKey(secret)
    for (const length of [0, 1, 55, 56, 64, 1000, 4091]) {
      const message = 'm'.repeat(length)
      const mac = createHmac('sha256', secret).update(message).digest('hex')
      assert.equal(native.hmacMatches(key, message, mac), true)
      assert.equal(native.hmacMatches(key, message, `${mac}0`), false)
      assert.equal(native.hmacMatches(key, message, mac.slice(1)), false)
      assert.equal(native.hmacMatches(key, message, ''), false)
    }
    for (const long of ['m'.repeat(4092), '€'.repeat(1364), '\u{1f600}'.repeat(5000)]) {
      assert.throws(() => native.hmacMatches(key, long, ''), TypeError)
    }
    assert.throws(() => native.hmacMatches(key, 1, ''), TypeError)
    assert.throws(() => native.hmacMatches(key, '', null), TypeError)
  }
  assert.throws(() => native.hmacMatches({}, '', ''), TypeError)
  for (const key of [undefined, 'x', Buffer.alloc(63), Buffer.alloc(65), new Uint16Array(32)]) {
    assert.throws(() => native.hmacKey(key), TypeError)
  }
}

/** Every doubtful request, whole and a byte at a time, through the gate and the parser behind it. */
async function gate() {
  const require = createRequire(import.meta.url)
  let uWS
  for (const name of ['uWebSockets.js-next', 'uWebSockets.js']) {
    try {
      uWS ??= require(name)
    } catch {}
  }
  assert.throws(() => native.guardApp(0, false, false), { code: 'EINVAL' })
  const told = []
  const tallies = new Float64Array(12)
  const refusals = Array(7).fill('HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\nno')
  const rest = [16_384, refusals]
  for (const wrong of [undefined, new Int32Array(12), {}]) {
    assert.throws(() => native.openGate(ignore, [], wrong, 1000, 1000, ...rest), TypeError)
  }
  assert.throws(() => native.openGate(ignore, [], tallies, 0, 1000, ...rest), TypeError)
  assert.throws(() => native.openGate(ignore, [], tallies, 1000, 'x', ...rest), TypeError)
  for (const wrong of [undefined, 0]) {
    assert.throws(() => native.openGate(ignore, [], tallies, 1000, 1000, wrong, refusals), TypeError)
  }
  for (const wrong of [undefined, [], ['x'], refusals.map(() => 'no end')]) {
    assert.throws(() => native.openGate(ignore, [], tallies, 1000, 1000, 16_384, wrong), TypeError)
  }
  const names = ['host', 'content-length', 'transfer-encoding', 'connection']
  const { states } = native.openGate((exchange) => told.push(exchange), names, tallies, 1000, 1000, ...rest)
  assert.throws(() => native.openGate(ignore, [], tallies, 1000, 1000, ...rest), { code: 'EALREADY' })
  for (const nobody of [-1, 0, 2 ** 17, 2 ** 31, 'x', undefined]) {
    assert.throws(() => native.resumeConnection(nobody), TypeError)
  }
  native.resumeConnection(1)
  assert.equal(native.expectBody(-1, {}), false)
  assert.notEqual(native.proveSyscalls(), '')
  for (let i = 0; i < 3; i++) {
    assert.equal(native.spareSyscalls(new Uint8Array(1)), true)
    assert.equal(native.proveSyscalls(), '')
    await turn()
    if (i < 2) assert.equal(native.unspareSyscalls(), true)
  }
  for (const fd of [...native.socketPair(), ...native.queuedConnection()]) {
    assert.equal(native.isSpared(fd), false)
    native.closeFd(fd)
  }
  assert.throws(() => native.isSpared(-1), TypeError)
  for (const wrong of [undefined, new Int32Array(12), {}]) assert.throws(() => native.countRefusals(wrong), TypeError)
  assert.throws(() => native.takeFirstBytes('x'), TypeError)
  native.countRefusals(new Float64Array(12))
  native.countRefusals(tallies)
  native.takeFirstBytes(true)
  assert.equal(native.gatedConnections(), 0)
  const app = uWS.App()
  const relayed = uWS.App().any('/*', (res) => res.end('ok'))
  native.guardApp(app.getDescriptor(), false, false)
  native.guardApp(relayed.getDescriptor(), false, true)
  const counts = new Int32Array(1)
  let held = 0
  let open = 0
  let waiting = 0
  app.filter((_, change) => {
    open += Number(change)
    counts[0] += Number(change)
  })
  app.any('/*', (res, req) => {
    const connection = states[0]
    states[0] = 0
    const answer = () => {
      res.end('ok')
      if (states[connection] === 2) {
        held++
        native.resumeConnection(connection)
      }
      states[connection] = 0
    }
    const bytes = req.getHeader('transfer-encoding') === '' ? Number(req.getHeader('content-length')) : -1
    let left = false
    res.onAborted(() => {
      left = true
    })
    if (req.getHeader('expect') !== '' && connection > 0) native.continueRequest(connection)
    assert.ok(native.readHead().startsWith(`${req.getCaseSensitiveMethod()} /`))
    if (bytes !== 0 && Number.isSafeInteger(bytes)) assert.equal(native.expectBody(bytes, { bytes }), true)
    if (req.getUrl() === '/stuck') return void waiting++
    res.onData((_, isLast) => {
      // Not with setImmediate: uSockets leaks what is closed behind a turn's poll.
      if (isLast) setTimeout(() => !left && res.cork(answer))
    })
  })
  const listener = await new Promise((resolve) => app.listen('127.0.0.1', 0, resolve))
  const port = uWS.us_socket_local_port(listener)
  const requests = [...CLASSES.flatMap(({ requests }) => requests), ...SERVED.map(({ request }) => request)]
  // By uWebSockets.js's own listener, and by the acceptor, which hands over what it has received.
  const { fd, port: doorPort } = native.listen('127.0.0.1', 0, 256)
  const onConnection = (connection, _address, isRelayed) => {
    const whose = isRelayed ? relayed : app
    whose.adoptSocket(connection)
    return isRelayed ? undefined : app
  }
  const door = [
    5000,
    new Float64Array(5),
    () => false,
    false,
    0,
    0,
    new Int32Array(0),
    1,
    false,
    1000,
    1 << 20,
    true,
    ignore,
  ]
  const handle = native.startAccepting(fd, counts, 0, onConnection, ignore, ...door)
  const send = (request, bytewise, port, forMs = 50) =>
    new Promise((resolve) => {
      const bytes = Buffer.from(request, 'latin1')
      const socket = connect({ port, host: '127.0.0.1', noDelay: true }, async () => {
        for (let i = 0; bytewise && i < bytes.length && !socket.destroyed; i++) {
          socket.write(bytes.subarray(i, i + 1))
          await turn()
        }
        if (!bytewise) socket.write(bytes)
        setTimeout(() => socket.destroy(), forMs)
      })
      socket.on('error', ignore).on('data', ignore).once('close', resolve)
    })
  for (let i = 0; i < requests.length; i += 32) {
    const some = requests.slice(i, i + 32)
    await Promise.all(
      [port, doorPort].flatMap((at) =>
        some.flatMap((request) => [
          send(request, false, at),
          ...(request.length < 500 ? [send(request, true, at)] : []),
        ]),
      ),
    )
    native.forgetApp(handle, i % 64 === 0 ? '' : '127.0.0.1')
  }
  assert.ok(told.length > 50 && told.every(({ bytes }) => bytes === -1))
  // All of them but the parser's own: what that would refuse the gate has.
  assert.ok(tallies.slice(0, 7).every((refused) => refused > 0))
  assert.equal(tallies[7], 0)
  const batch = 'POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab'.repeat(400)
  for (const at of [port, doorPort]) {
    for (const bytewise of [false, true]) await send(bytewise ? batch.slice(0, 400) : batch, bytewise, at)
    await send(`${batch.slice(0, 53)}${'x'.repeat(300_000)}`, false, at)
  }
  const owned = new Uint8Array(states.length)
  const stuck = ['100-continue', '100-Continue', 'x'].map((expectation) =>
    send(`POST /stuck HTTP/1.1\r\nHost: a\r\nExpect: ${expectation}\r\nContent-Length: 2\r\n\r\nab`, false, port, 5000),
  )
  while (waiting < stuck.length || open > stuck.length) await new Promise((resolve) => setTimeout(resolve, 10))
  // None is ended at first sight.
  await new Promise((resolve) => setTimeout(resolve))
  assert.equal(native.endStuckConnections(owned), 0)
  await new Promise((resolve) => setTimeout(resolve))
  assert.equal(native.endStuckConnections(owned), stuck.length)
  assert.equal(tallies[11], stuck.length)
  await Promise.all(stuck)
  assert.throws(() => native.endStuckConnections(new Uint8Array(1)), TypeError)
  native.continueRequest(states.length - 1)
  native.stopAccepting(handle, 0)
  assert.ok(held > 10)
  for (let i = 0; open > 0 && i < 1000; i++) await new Promise((resolve) => setTimeout(resolve, 10))
  assert.equal(open, 0)
  uWS.us_listen_socket_close(listener)
  app.close()
  relayed.close()
}

failures()
macs()
await segments()
await accepting()
await door()
await handover()
await wire(null)
await wire(join(folder, 'wire'))
await threads()
await gate()
await collect()
// No sanitizer counts mappings: of the sixty and more made, none may be left.
const left = readFileSync('/proc/self/maps', 'utf8')
  .split('\n')
  .filter((line) => /memfd:tidegate|tidegate-exercise-/.test(line))
assert.deepEqual(left, [])
rmSync(folder, { recursive: true })
console.log('every function exercised')
