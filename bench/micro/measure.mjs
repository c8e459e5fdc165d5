// Times one pure function in this process: median and range of a few batches. Says which of two ways to do one thing is
// cheaper, and nothing about the gateway: between two requests its caches are colder by far.
const BATCHES = 11
const BATCH_MS = 40

let sink = 0

/** `work(i)` should return something that depends on what it did, so that it cannot be left out. */
export function measure(name, work) {
  let perBatch = 1000
  for (;;) {
    const ms = time(work, perBatch)
    if (ms > BATCH_MS / 2) break
    perBatch *= 2
  }
  const ns = []
  for (let i = 0; i < BATCHES; i++) ns.push((time(work, perBatch) * 1e6) / perBatch)
  ns.sort((a, b) => a - b)
  console.log(
    `${name.padEnd(48)} ${ns[BATCHES >> 1].toFixed(0).padStart(7)} ns  (${ns[0].toFixed(0)}–${ns[BATCHES - 1].toFixed(0)})`,
  )
}

function time(work, count) {
  const start = performance.now()
  for (let i = 0; i < count; i++) {
    const result = work(i)
    sink += typeof result === 'string' ? result.length : result ? 1 : 0
  }
  return performance.now() - start
}

process.once('exit', () => {
  if (sink === Number.NEGATIVE_INFINITY) console.log(sink)
})
