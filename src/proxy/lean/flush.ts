// Writes upstream once per turn of the event loop: all requests of one poll phase leave together after it. Runs per request.

export interface Writer {
  flush(): void
}

let waiting: Writer[] = []
let flushing: Writer[] = []
let scheduled = false

function flushAll(): void {
  scheduled = false
  const writers = waiting
  waiting = flushing
  flushing = writers
  for (let i = 0; i < writers.length; i++) writers[i]!.flush()
  writers.length = 0
}

/** Calls writer.flush() after the poll phase of this turn. */
export function flushLater(writer: Writer): void {
  waiting.push(writer)
  if (scheduled) return
  scheduled = true
  setImmediate(flushAll)
}
