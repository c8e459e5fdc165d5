import { once } from 'node:events'
import { request } from 'node:http'
import { connect } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { type Admin, type AdminOptions, startAdmin } from '../../../src/primary/admin.js'
import type { Logger } from '../../../src/telemetry/log.js'

const started: Admin[] = []
afterEach(async () => {
  for (const admin of started.splice(0)) await admin.close()
})

async function start(options: Partial<AdminOptions> = {}) {
  const faults: unknown[] = []
  const admin = await startAdmin({
    host: '127.0.0.1',
    names: [],
    port: 0,
    ready: () => ({ ready: true, why: '' }),
    metrics: () => 'tidegate_build_info 1\n',
    status: () => ({ workers: [] }),
    log: { error: (fields: unknown) => faults.push(fields) } as unknown as Logger,
    ...options,
  })
  started.push(admin)
  const ask = (path: string, method = 'GET', body?: string) =>
    fetch(`http://127.0.0.1:${admin.port}${path}`, body === undefined ? { method } : { method, body })
  return { admin, ask, faults }
}

describe('admin listener', () => {
  it('is live as soon as it listens', async () => {
    const { ask } = await start({ ready: () => ({ ready: false, why: 'starting' }) })
    expect((await ask('/livez')).status).toBe(200)
  })

  it('is ready when the gateway is, and else says what is missing', async () => {
    let now = { ready: false, why: '1 of 2 workers listen' }
    const { ask } = await start({ ready: () => now })
    const early = await ask('/readyz')
    expect(early.status).toBe(503)
    expect(early.headers.get('content-type')).toBe('application/problem+json')
    expect(await early.json()).toMatchObject({ status: 503, detail: '1 of 2 workers listen' })
    now = { ready: true, why: '' }
    const later = await ask('/readyz')
    expect([later.status, await later.text()]).toEqual([200, 'ready\n'])
  })

  it('gives metrics in the type Prometheus wants, also where they take a while', async () => {
    const { ask } = await start({ metrics: () => Promise.resolve('a 1\n') })
    const answer = await ask('/metrics?x=1')
    expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
    expect(await answer.text()).toBe('a 1\n')
  })

  it('gives the status as JSON', async () => {
    const { ask } = await start({ status: () => ({ workers: [{ pid: 1 }], name: 'é' }) })
    const answer = await ask('/status')
    expect(answer.headers.get('content-type')).toBe('application/json')
    expect(await answer.json()).toEqual({ workers: [{ pid: 1 }], name: 'é' })
  })

  it('answers HEAD as GET, without the body', async () => {
    const { ask } = await start()
    const [get, head] = [await ask('/status'), await ask('/status', 'HEAD')]
    expect(head.status).toBe(200)
    expect(head.headers.get('content-length')).toBe(String((await get.text()).length))
    expect(await head.text()).toBe('')
  })

  it('knows no other page and no other method', async () => {
    const { ask } = await start()
    const unknown = await ask('/nope')
    expect([unknown.status, ((await unknown.json()) as { title: string }).title]).toEqual([404, 'Not Found'])
    expect((await ask('/livez/')).status).toBe(404)
    const post = await ask('/status', 'POST', 'x'.repeat(100_000))
    expect([post.status, post.headers.get('allow')]).toEqual([405, 'GET, HEAD'])
  })

  it('answers 500 where a page cannot be made, logs why, and lives on', async () => {
    const { ask, faults } = await start({
      status: () => {
        throw new Error('boom')
      },
    })
    const answer = await ask('/status')
    expect(answer.status).toBe(500)
    expect(await answer.text()).not.toContain('boom')
    expect(faults).toMatchObject([{ err: { message: 'boom' }, path: '/status' }])
    expect((await ask('/livez')).status).toBe(200)
  })

  it('names the setting when its port is taken or its address is not here', async () => {
    const { admin } = await start()
    await expect(start({ port: admin.port })).rejects.toThrow(`TIDEGATE_ADMIN_PORT: 127.0.0.1:${admin.port} is in use`)
    await expect(start({ host: '203.0.113.1' })).rejects.toThrow(
      /TIDEGATE_ADMIN_HOST: cannot listen on 203\.0\.113\.1:0: .*EADDRNOTAVAIL/,
    )
  })

  describe('answers', () => {
    /** A request with the header fields as they are: fetch would not let them be chosen. */
    function status(port: number, fields: Record<string, string>, method = 'GET', from = '127.0.0.1'): Promise<number> {
      return new Promise((resolve, reject) => {
        const headers = method === 'POST' ? { ...fields, 'content-length': '0' } : fields
        const path = method === 'POST' ? '/restart' : '/status'
        request({ port, host: from, path, method, headers }, (response) => {
          response.resume()
          resolve(response.statusCode!)
        })
          .on('error', reject)
          .end()
      })
    }

    it.each(['localhost', 'LOCALHOST:9901', 'localhost.', '127.0.0.1', '127.0.0.1:80'])('Host: %s', async (host) => {
      const { admin } = await start()
      expect(await status(admin.port, { host })).toBe(200)
    })

    it.each([
      'evil.example',
      'evil.example:9901',
      'localhost.evil.example',
      '127.0.0.1.evil.example',
      '127.0.0.2',
      '[::1]',
      '0.0.0.0',
      '127.1',
      '2130706433',
      'localhost@evil.example',
    ])('not Host: %s', async (host) => {
      const { admin } = await start()
      expect(await status(admin.port, { host })).toBe(421)
      expect(await status(admin.port, { host }, 'POST')).toBe(421)
    })

    it('the names in TIDEGATE_ADMIN_NAMES, and the one it listens on', async () => {
      const { admin } = await start({ host: 'localhost', names: ['Tidegate', '10.1.2.3', '2001:db8::1'] })
      for (const host of ['tidegate:9901', '10.1.2.3:9901', '[2001:DB8::1]:9901', 'localhost'])
        expect(await status(admin.port, { host }, 'GET', 'localhost'), host).toBe(200)
    })

    it('the address of IPv6 that it was reached by, and of IPv4 by way of it', async () => {
      const { admin } = await start({ host: '::' })
      expect(await status(admin.port, { host: `[::1]:${admin.port}` }, 'GET', '::1')).toBe(200)
      expect(await status(admin.port, { host: '127.0.0.1' }, 'GET', '127.0.0.1')).toBe(200)
      expect(await status(admin.port, { host: '[::1]' }, 'GET', '127.0.0.1')).toBe(421)
    })

    it('HTTP/1.0 without Host, as load balancers ask', async () => {
      const { admin } = await start()
      const socket = connect(admin.port, '127.0.0.1')
      socket.write('GET /readyz HTTP/1.0\r\n\r\n')
      const [first] = (await once(socket, 'data')) as [Buffer]
      expect(first.toString()).toMatch(/^HTTP\/1\.1 200 /)
      socket.destroy()
    })

    it.each([
      { origin: 'http://evil.example' },
      { origin: 'null' },
      { origin: 'http://localhost' },
      { 'sec-fetch-site': 'same-origin' },
      { 'sec-fetch-site': 'none' },
    ])('no POST with %j', async (fields) => {
      const restarts: unknown[] = []
      const { admin } = await start({
        restart: () => {
          restarts.push(1)
          return ''
        },
      })
      expect(await status(admin.port, { host: 'localhost', ...fields }, 'POST')).toBe(403)
      expect(restarts).toEqual([])
      expect(await status(admin.port, { host: 'localhost' }, 'POST')).toBe(202)
    })
  })

  it('closes although somebody still holds a connection', async () => {
    const { admin, ask } = await start()
    const idle = connect(admin.port, '127.0.0.1')
    const cut = new Promise((resolve) => idle.on('error', () => {}).on('close', resolve))
    await ask('/livez')
    await admin.close()
    started.length = 0
    await cut
    await expect(ask('/livez')).rejects.toThrow()
  })
})
