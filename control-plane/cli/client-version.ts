/** Which Gantry this command line is of. */
import { readFileSync } from 'node:fs';

export function clientVersion(): string {
  return String(JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')).version);
}
