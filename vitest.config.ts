import { defineConfig } from 'vitest/config';

/** Pure suites share processes; suites with real parts (`test/run.ts` runs them) do not. */
export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    pool: 'forks',
    // For what hangs: a story's steps have limits of their own, and how long they take says what else the machine does.
    testTimeout: 120_000,
    hookTimeout: 120_000,
    teardownTimeout: 60_000,
    // What differs is in the message itself: the end of a run shows no more of a failure.
    chaiConfig: { truncateThreshold: 1_500 },
  },
});
