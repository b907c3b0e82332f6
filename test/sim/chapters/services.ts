/** Services that are applied, scaled, updated and removed, on machines of which everything fails. */
import { faults } from '../faults.ts';
import type { Chapter } from '../plot.ts';
import { begin, tidyUp, wishes } from '../workload.ts';

export const services: Chapter = { name: 'services', wishes, faults, begin, tidyUp };
