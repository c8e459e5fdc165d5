import { defineConfig } from 'vitest/config'
export default defineConfig({ test: { root: '/work/main', include: ['test/fuzz/**/*.test.ts'], testTimeout: 600000 } })
