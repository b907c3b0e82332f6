/** Probes the kernel of ADDRESS, COUNT times at once, from the network it is started in; prints what the probes said, and how many processes they left. */
import { readFileSync } from 'node:fs';
import { systemClock } from '#proto/kernel/clock.ts';
import { kernelProbe } from '#proto/kernel-probe.ts';

const [address = '', count = '1'] = process.argv.slice(2);
const probe = kernelProbe(systemClock);
const answers = await Promise.all(Array.from({ length: Number(count) }, () => probe(address, 250)));
// Those that were ended are reaped in a turn of their own.
await systemClock.sleep(100);
const children = readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8').trim();
process.stdout.write(JSON.stringify({ answers, children: children === '' ? 0 : children.split(' ').length }));
