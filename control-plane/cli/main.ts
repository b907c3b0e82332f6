/** `gantry`: as little as possible before the compile cache is on, so that it answers at once. */
import { enableCompileCache } from 'node:module';

enableCompileCache();
const { run } = await import('./run.ts');
process.exitCode = await run(process.argv.slice(2));
