/** Writes the reference of Compose keys beside the readers that it is read from: a part of `npm run gen`. */
import { writeFileSync } from 'node:fs';
import { keysPage } from './compose/keys-page.ts';

writeFileSync(new URL('compose/KEYS.md', import.meta.url), keysPage());
