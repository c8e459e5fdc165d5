import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/chaos/**/*.test.ts'],
    // Each loads both cores.
    maxWorkers: 1,
    testTimeout: 180_000,
    hookTimeout: 20_000,
  },
})
