// The first module of the primary and of each worker process. SIGUSR1 makes Node open its debugger to any user of the
// machine, unless the process listens for the signal; in Tidegate it means "reopen the log files" (primary.ts). Imports
// nothing, so that it runs before anything is loaded.

process.on('SIGUSR1', () => {})

/**
 * A signal before this line has opened the debugger, or is about to: it is closed again. One requested at the start
 * stays open.
 */
const wanted = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) => text.includes('--inspect'))
if (!wanted && process.features.inspector) {
  const inspector = process.getBuiltinModule('node:inspector')
  const close = (): void => {
    if (inspector.url() !== undefined) inspector.close()
  }
  close()
  setImmediate(close)
  // Node opens it from a thread, which may be late on a busy machine.
  setTimeout(close, 1000).unref()
}
