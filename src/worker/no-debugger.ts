// The first module of the primary and of each worker process. SIGUSR1 makes Node open its debugger, to any user of the machine, unless the process
// listens for the signal; here it means that the log files are opened anew (primary.ts). Imports nothing, so that it runs before anything is loaded.

process.on('SIGUSR1', () => {})

/** A signal that came before this line has opened the debugger, or is about to. One that was asked for at the start stays. */
const wanted = [...process.execArgv, process.env.NODE_OPTIONS ?? ''].some((text) => text.includes('--inspect'))
if (!wanted && process.features.inspector) {
  const inspector = process.getBuiltinModule('node:inspector')
  const close = (): void => {
    if (inspector.url() !== undefined) inspector.close()
  }
  close()
  setImmediate(close)
  // Node opens it from a thread, which a busy machine may keep waiting.
  setTimeout(close, 1000).unref()
}
