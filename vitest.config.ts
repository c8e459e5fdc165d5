import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/{unit,contract,e2e,fuzz}/**/*.test.ts'],
    // End-to-end suites start whole gateways: two at a time is what two cores carry.
    maxWorkers: 2,
    // Only what hangs is to be ended by these: on a machine with other work to do a gateway may take seconds to start.
    testTimeout: 120_000,
    hookTimeout: 60_000,
  },
})
