// curl: all requests in one process, which keeps its connection.
import { execFile } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { faultOf, pattern, readPlan } from './plan.mjs'

const folder = mkdtempSync(join(tmpdir(), 'tidegate-curl-'))
const plan = readPlan()
const bodies = new Set()
const config = plan.map(({ id, url, framing, expect, bodyBytes }) => {
  const lines = [
    'silent',
    'show-error',
    'max-time = 20',
    // Longer than anybody waits: who gets no 100 fails.
    'expect100-timeout = 60',
    `url = "${url}"`,
    `header = "x-request: ${id}"`,
    `output = "${join(folder, `answer-${id}`)}"`,
    `write-out = "${id} %{http_code} %header{x-request} %header{x-received} %{errormsg}\\n"`,
    `header = "Expect:${expect ? ' 100-continue' : ''}"`,
  ]
  if (framing !== 'none') {
    const file = join(folder, `body-${bodyBytes}`)
    if (!bodies.has(file)) writeFileSync(file, pattern(bodyBytes))
    bodies.add(file)
    lines.push(`data-binary = "@${file}"`)
  }
  if (framing === 'chunked') lines.push('header = "Transfer-Encoding: chunked"')
  return lines.join('\n')
})
writeFileSync(join(folder, 'config'), config.join('\nnext\n'))
const { stdout } = await promisify(execFile)('curl', ['--disable', '--config', join(folder, 'config')], {
  maxBuffer: 2 ** 26,
}).catch((error) => error)
const said = new Map(stdout.split('\n').map((line) => [line.split(' ')[0], line.split(' ')]))
for (const one of plan) {
  const [, status, request, received, ...error] = said.get(one.id) ?? ['', 'nothing']
  const body = () => {
    try {
      return readFileSync(join(folder, `answer-${one.id}`))
    } catch {
      return Buffer.alloc(0)
    }
  }
  const fault = faultOf(one, {
    status: Number(status),
    headers: { 'x-request': request, 'x-received': received },
    body: body(),
  })
  if (fault !== '') console.log(`${one.id}: ${fault} ${error.join(' ')}`)
}
rmSync(folder, { recursive: true })
console.log(`done ${plan.length}`)
