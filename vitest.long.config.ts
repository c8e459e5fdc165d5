import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/{long,clients}/**/*.test.ts'],
    // They measure memory and lose workers under load: one at a time.
    maxWorkers: 1,
    testTimeout: 180_000,
    hookTimeout: 20_000,
  },
})
