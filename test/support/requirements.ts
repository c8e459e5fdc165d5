// What a test needs besides Node: a tool, or workers that are processes. Where it is missing the test is skipped and
// says so; with TIDEGATE_TEST_REQUIRE=all, as in CI, a missing one is a failure, so that a suite cannot go green by not
// running.
import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import type { TestContext } from 'vitest'
import { native, nativeProblem } from '../../native/index.js'

const mustHaveAll = process.env.TIDEGATE_TEST_REQUIRE === 'all'
const threadsWanted = process.env.TIDEGATE_ISOLATION === 'thread'

function missing(context: TestContext, what: string): never {
  if (mustHaveAll) throw new Error(`TIDEGATE_TEST_REQUIRE=all, and ${what}`)
  return context.skip(what)
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** @param name a program somewhere in PATH */
export function requireTool(context: TestContext, name: string): void {
  const path = `${process.env.PATH ?? ''}:/usr/sbin:/sbin`
  const found = path.split(delimiter).some((folder) => folder !== '' && isExecutable(join(folder, name)))
  if (!found) missing(context, `${name} is not installed`)
}

export function requirePython(context: TestContext, python: string, module: string): void {
  if (spawnSync(python, ['-c', `import ${module}`]).status !== 0) missing(context, `${python} has no ${module}`)
}

/** The native addon, made anew with a part of it changed: wants what built it. Returns the folder of Node's headers. */
export function requireNativeBuild(context: TestContext): string {
  const root = join(import.meta.dirname, '../..')
  if (native === null) missing(context, nativeProblem)
  requireTool(context, process.env.CXX ?? 'g++')
  // node-gyp writes down where it took them from.
  const config = readFileSync(join(root, 'native/build/config.gypi'), 'utf8').replace(/^#.*$/gm, '')
  const { variables } = JSON.parse(config) as { variables: { nodedir: string } }
  const headers = join(variables.nodedir, 'include/node')
  if (!existsSync(join(headers, 'node_api.h'))) missing(context, "Node's headers are not installed")
  return headers
}

/** @param count of descriptors that one process may have: Node raises its own limit to the hard one */
export function requireDescriptors(context: TestContext, count: number): void {
  const line = /^Max open files +\S+ +(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
  const hard = line?.[1] === 'unlimited' ? Number.POSITIVE_INFINITY : Number(line?.[1])
  if (!(hard >= count)) missing(context, `ulimit -Hn is ${line?.[1]}, ${count} are needed`)
}

/**
 * HTTP/1.0, the PROXY protocol and the limits on connections are the native acceptor's, which serves processes alone.
 */
export function requireAcceptor(context: TestContext): void {
  if (threadsWanted) context.skip('workers are threads here, and uWebSockets.js accepts by itself')
  if (native === null) missing(context, `workers are threads: ${nativeProblem}`)
}

/** Some faults of framing are seen only by the native gate. */
export function requireGate(
  context: TestContext,
  gateway: { readonly log: { readonly all: readonly { msg: string }[] } },
): void {
  const without = gateway.log.all.some((line) => line.msg.includes('no gate before the parser'))
  if (without) missing(context, 'the native addon was not built: nothing stands before uWebSockets.js')
}

/** Only a process can be killed or stopped without the others. */
export function requireProcesses(context: TestContext, gateway: { readonly isolation: string }): void {
  if (gateway.isolation === 'process') return
  if (threadsWanted) context.skip('workers are threads here, and a thread cannot be killed alone')
  missing(context, 'workers are threads: the native addon was not built')
}

/** Threads without the native addon keep their state in memory. */
export async function requireStateFile(context: TestContext, gateway: { status<T>(): Promise<T> }): Promise<void> {
  const { state } = await gateway.status<{ state: { kind: string } }>()
  if (state.kind === 'mapped') return
  missing(context, 'state is kept in memory here: the native addon was not built')
}
