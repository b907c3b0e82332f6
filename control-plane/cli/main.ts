/** `gantry`: as little as possible before the compile cache is on, so that it answers at once. */
import { enableCompileCache } from 'node:module';

enableCompileCache();
// Node's notes about its own future (such as on certificates of IP addresses) are not for who deploys a service.
process.noDeprecation = true;
const { run } = await import('./run.ts');
process.exitCode = await run(process.argv.slice(2));
