import { defineConfig } from 'vitest/config'
import { BaseSequencer, type TestSpecification } from 'vitest/node'

/** Small files that take long. Begun last, as their size has it, they would leave one core without work. */
const FIRST = /\/(exactness|answers|responses|start)\.test\.ts$/

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const sorted = await super.sort(files)
    const isFirst = ({ moduleId }: TestSpecification): boolean => FIRST.test(moduleId)
    return [...sorted.filter(isFirst), ...sorted.filter((file) => !isFirst(file))]
  }
}

export default defineConfig({
  test: {
    include: ['test/{unit,contract,e2e,fuzz}/**/*.test.ts'],
    // End-to-end suites start whole gateways: two at a time is what two cores carry.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    // Only what hangs is to be ended by these: on a machine with other work to do a gateway may take seconds to start.
    testTimeout: 120_000,
    hookTimeout: 60_000,
  },
})
