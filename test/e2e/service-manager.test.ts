// What a service manager does for the gateway, and is told by it: sd_listen_fds(3), sd_notify(3).
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { native } from '../../native/index.js'
import { forwardAll, type Gateway, type GatewayOptions, startGateway, temporaryFolder } from '../support/gateway.js'
import { Lines } from '../support/lines.js'
import { type Origin, startEcho } from '../support/origins.js'
import { Connection, call } from '../support/raw-client.js'
import { requireProcesses, requireTool } from '../support/requirements.js'

let origin: Origin
let config: object

beforeAll(async () => {
  origin = await startEcho()
  config = forwardAll(origin)
})

afterAll(() => origin.close())

const RECEIVER = `
import socket, sys
receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
receiver.bind(sys.argv[1])
print('there', flush=True)
while True:
    print(receiver.recv(4096).decode().replace(chr(10), ' '), flush=True)
`

test('is told when the gateway serves, reloads and stops, and that it lives', async (context) => {
  requireTool(context, 'python3')
  const path = join(temporaryFolder(), 'notify')
  const receiver = spawn('python3', ['-c', RECEIVER, path], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    const told = new Lines<string>('word to the service manager')
    createInterface(receiver.stdout).on('line', (line) => told.push(line))
    await told.find((line) => line === 'there', 'the receiver')
    const gateway = await startGateway({ config, env: { NOTIFY_SOCKET: path, WATCHDOG_USEC: '200000' } })
    requireProcesses(context, gateway)
    await told.take(3, (line) => line === 'WATCHDOG=1', 'signs of life')
    await call(gateway.adminPort, { method: 'POST', target: '/reload', host: 'localhost' })
    await gateway.close()
    await told.find((line) => line === 'STOPPING=1', 'the end')
    const states = told.all.filter((line) => line !== 'WATCHDOG=1')
    expect(states).toEqual([
      'there',
      'READY=1',
      expect.stringMatching(/^RELOADING=1 MONOTONIC_USEC=\d+$/),
      'READY=1',
      'STOPPING=1',
    ])
  } finally {
    receiver.kill('SIGKILL')
    await once(receiver, 'close')
  }
})

test('opens the socket, and keeps whoever comes while no gateway runs', async (context) => {
  const probe = await startGateway({ config })
  await probe.close()
  requireProcesses(context, probe)
  const { fd, port } = native!.listen('127.0.0.1', 0, 128)
  const start = (options: Partial<GatewayOptions> = {}): Promise<Gateway> =>
    startGateway({ config, listenFd: fd, ...options })
  try {
    const first = await start()
    expect(first.port).toBe(port)
    expect((await call(port)).status).toBe(200)
    await first.close()
    // Nobody accepts, and nobody is turned away.
    const between = await Connection.open(port)
    await between.send({})
    const second = await start({ losesWorkers: true })
    expect((await between.answer()).status).toBe(200)
    between.destroy()
    process.kill(second.command.child.pid!, 'SIGKILL')
    await second.command.ended
    const third = await start()
    expect((await call(port)).status).toBe(200)
    await third.close()
  } finally {
    native!.closeFd(fd)
  }
})
